// What is done to the values of one row: norms, rotary positions, activations, soft caps.
#pragma once

#include "functions.h"
#include "kernels.h"

namespace HEADRACE_ISA {

using headrace::Activation;
using headrace::Norm;

// ---- norms ----

// Folds a row into 16 sums, four chains at a time: sum = step(sum, values, how many of them are there).
template <class Step>
inline float sum_row(const float* x, int width, Step step) {
  F32 sum[4] = {broadcast(0), broadcast(0), broadcast(0), broadcast(0)};
  int at = 0;
  for (; at + 4 * LANES <= width; at += 4 * LANES)
    for (int i = 0; i < 4; ++i) sum[i] = step(sum[i], load(x + at + i * LANES), LANES);
  for (; at < width; at += LANES) sum[0] = step(sum[0], load_some(x + at, width - at), width - at);
  return sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

inline void normalise_part(const Norm& norm, int width, const float* x, float* y) {
  const float count = static_cast<float>(width);
  const float mean = norm.layer ? sum_row(x, width, [](F32 sum, F32 v, int) { return sum + v; }) / count : 0;
  const float squares = sum_row(x, width, [&](F32 sum, F32 v, int there) {
    const F32 apart = v - broadcast(mean);
    const F32 kept = there < LANES ? keep_lanes(apart, 0, there, broadcast(0)) : apart;
    return fma(kept, kept, sum);
  });
  const float inverse = 1 / std::sqrt(squares / count + norm.eps);
  for (int at = 0; at < width; at += LANES) {
    const int there = width - at;
    const F32 unit = (load_some(x + at, there) - broadcast(mean)) * broadcast(inverse);
    const F32 gain = load_some(norm.gain + at, there);
    store_some(y + at, norm.bias ? fma(unit, gain, load_some(norm.bias + at, there)) : unit * gain, there);
  }
}

inline void normalise(const Norm& norm, const float* x, float* y) {
  const int width = norm.width / norm.parts;
  for (int part = 0; part < norm.parts; ++part) normalise_part(norm, width, x + part * width, y + part * width);
}

// ---- rotary positions ----

// The pairs are value i and value i + half (GPT-NeoX), Su et al., RoFormer, 2021.
inline void rotate(float* x, int heads, int dim, int half, const float* cos, const float* sin) {
  for (int at = 0; at < half; at += LANES) {
    const int there = half - at;
    const F32 c = load_some(cos + at, there), s = load_some(sin + at, there);
    for (int head = 0; head < heads; ++head) {
      float* first = x + head * dim + at;
      const F32 a = load_some(first, there), b = load_some(first + half, there);
      store_some(first, fma(a, c, broadcast(0) - b * s), there);
      store_some(first + half, fma(b, c, a * s), there);
    }
  }
}

// ---- activations ----

template <class Function>
inline void apply(Function function, const float* gate, const float* up, float* out, size_t n) {
  for (size_t at = 0; at < n; at += LANES) {
    const int there = n - at < LANES ? static_cast<int>(n - at) : LANES;
    const F32 value = function(load_some(gate + at, there));
    store_some(out + at, up ? value * load_some(up + at, there) : value, there);
  }
}

inline void activate(Activation kind, const float* gate, const float* up, float* out, size_t n) {
  switch (kind) {
    case Activation::silu: return apply([](F32 x) { return silu(x); }, gate, up, out, n);
    case Activation::gelu: return apply([](F32 x) { return gelu(x); }, gate, up, out, n);
    case Activation::gelu_tanh: return apply([](F32 x) { return gelu_tanh(x); }, gate, up, out, n);
    case Activation::relu: return apply([](F32 x) { return relu(x); }, gate, up, out, n);
    case Activation::none: return apply([](F32 x) { return x; }, gate, up, out, n);
  }
}

inline F32 cap(F32 x, float most) { return tanh(x / broadcast(most)) * broadcast(most); }

inline void soften(float* logits, size_t n, float scale, float most) {
  const F32 factor = broadcast(scale);
  if (most == 0) return apply([&](F32 x) { return x * factor; }, logits, nullptr, logits, n);
  apply([&](F32 x) { return cap(x * factor, most); }, logits, nullptr, logits, n);
}

inline void exponentials(const float* x, size_t n, float best, float temperature, float* out) {
  const F32 top = broadcast(best), divisor = broadcast(temperature);
  apply([&](F32 value) { return exp((value - top) / divisor); }, x, nullptr, out, n);
}

}  // namespace HEADRACE_ISA

// Products of a few rows with a matrix: exact integer dot products of groups, summed in fp32 from input 0 on.
#pragma once

#include "kernels.h"
#include "simd.h"

namespace HEADRACE_ISA {

using headrace::Format;
using headrace::Matrix;
using headrace::PANEL;
using headrace::Rows;
using headrace::SCALE_INPUTS;
using headrace::SUM_INPUTS;

// ---- activations ----

// Codes of 16 values; returns their sum. The bound stands second, where it takes the place of a NaN.
inline int32_t store_codes(F32 scaled, float bound, int planes, int8_t* first, int8_t* second) {
  const I32 whole = to_int(min(max(scaled, broadcast(-bound)), broadcast(bound)));
  if (planes == 1) {
    store_bytes(first, whole);
  } else {
    // A little more than the quotient, so that ties go up and the rest stays in [-128, 127].
    const I32 upper = to_int(fma(to_float(whole), broadcast(1.0f / 256), broadcast(1.0f / 1024)));
    store_bytes(first, upper);
    store_bytes(second, whole - shift_left(upper, 8));
  }
  return sum_lanes(whole);
}

// Codes of as many groups as there are lanes, whose scales are computed side by side, in registers: a vector that is
// read back right after its lanes were written one by one would wait until every store before has left the core.
inline void quantise_groups(const Rows& x, const float* values, size_t at, int groups) {
  static_assert(SCALE_INPUTS == 2 * LANES && SUM_INPUTS == LANES);
  const float bound = x.planes == 1 ? 127.0f : 127.0f * 256 - 1;
  F32 most = broadcast(0);
  for (int g = 0; g < groups; ++g) {
    const float* group = values + g * SCALE_INPUTS;
    most = keep_lanes(broadcast(max_lanes(max(abs(load(group)), abs(load(group + LANES))))), g, g + 1, most);
  }
  alignas(64) float scales[LANES], inverse[LANES];
  const F32 scale = most / broadcast(bound);
  store(scales, scale);
  store(inverse, select_less(broadcast(1e-30f), scale, broadcast(1) / scale, broadcast(0)));
  store_some(x.scales + at / SCALE_INPUTS, scale, groups);

  float* totals = x.totals + at / SCALE_INPUTS;
  int32_t* sums = x.sums + at / SUM_INPUTS;
  int8_t *first = x.codes[0] + at, *second = x.codes[1] + at;
  const int planes = x.planes;
  for (int g = 0; g < groups; ++g, sums += 2, values += SCALE_INPUTS, first += SCALE_INPUTS, second += SCALE_INPUTS) {
    const F32 factor = broadcast(inverse[g]);
    const int32_t low = store_codes(load(values) * factor, bound, planes, first, second);
    const int32_t high = store_codes(load(values + LANES) * factor, bound, planes, first + LANES, second + LANES);
    sums[0] = low;
    sums[1] = high;
    totals[g] = scales[g] * static_cast<float>(low + high);
  }
}

// Symmetric codes: a group's greatest magnitude becomes 127, or 127 * 256 - 1 with two planes.
inline void quantise(const Rows& x, int row, int from, int to) {
  const float* values = x.values + row * x.stride;
  const size_t start = static_cast<size_t>(row) * x.inputs;
  for (; from < to; from += LANES * SCALE_INPUTS) {
    const int groups = (to - from) / SCALE_INPUTS;
    quantise_groups(x, values + from, start + from, groups < LANES ? groups : LANES);
  }
}

// ---- quantised weights ----

template <Format F>
constexpr int group_code_bytes(int group) {
  const int quads = group / 4;
  if (F == Format::codes8) return quads * 64;
  return quads * 32 + quads * 8 * (F == Format::codes5 ? 1 : F == Format::codes6 ? 2 : 0);
}

// The codes of two neighbouring quads of inputs, for 16 outputs.
template <Format F>
inline void load_quads(const uint8_t* group, int pair, int quads, U8& even, U8& odd) {
  if constexpr (F == Format::codes8) {
    even = load_bytes(group + pair * 128);
    odd = load_bytes(group + pair * 128 + 64);
  } else {
    const U8 both = load_codes(group + pair * 64);
    even = low_nibbles(both);
    odd = high_nibbles(both);
    const uint8_t* plane = group + quads * 32 + pair * 16;
    if constexpr (F != Format::codes4) {
      even = add_bit(even, plane, 4);
      odd = add_bit(odd, plane + 8, 4);
    }
    if constexpr (F == Format::codes6) {
      even = add_bit(even, plane + quads * 8, 5);
      odd = add_bit(odd, plane + quads * 8 + 8, 5);
    }
  }
}

template <bool WIDE>
inline F32 load_scale(const uint8_t* p) {
  if constexpr (WIDE) return load(reinterpret_cast<const float*>(p));
  else return load_f16(reinterpret_cast<const uint16_t*>(p));
}

// The results of ROWS rows by PANELS panels.
template <int ROWS, int PANELS>
inline void store_tile(const Matrix& w, const F32 (&total)[ROWS][PANELS], int row, int panel, float* out, size_t stride,
                       bool add) {
  for (int r = 0; r < ROWS; ++r)
    for (int p = 0; p < PANELS; ++p) {
      const int output = (panel + p) * PANEL, there = w.outputs - output;
      float* to = out + (row + r) * stride + output;
      store_some(to, add ? load_some(to, there) + total[r][p] : total[r][p], there);
    }
}

// ROWS rows by PANELS panels over all inputs.
template <Format F, int GROUP, bool AFFINE, bool WIDE, int PLANES, int ROWS, int PANELS>
inline void multiply_tile(const Matrix& w, const Rows& x, int row, int panel, float* out, size_t stride, bool add) {
  constexpr int quads = GROUP / 4, codes = group_code_bytes<F>(GROUP), scale_bytes = LANES * (WIDE ? 4 : 2);
  constexpr int step = codes + scale_bytes * (AFFINE ? 2 : 1);
  constexpr int zero = F == Format::codes8 ? BYTE_ZERO : 0;  // the code that the dot products count as 0
  static_assert(!AFFINE || zero == 0);
  const uint8_t* at = w.data + panel * w.panel_bytes;
  const size_t inputs = x.inputs, first = row * inputs;
  F32 total[ROWS][PANELS];
  for (auto& line : total)
    for (auto& value : line) value = broadcast(0);

  for (size_t input = 0; input < inputs; input += GROUP, at += step) {
    // The first rows bring the panels that come next, while the arithmetic goes on.
    if (row == 0)
      for (int p = 0; p < PANELS; ++p)
        for (int line = 0; line < step; line += 64) __builtin_prefetch(at + (p + PANELS) * w.panel_bytes + line, 0, 2);
    I32 dot[PLANES][ROWS][PANELS];
    for (int r = 0; r < ROWS; ++r) {
      for (int p = 0; p < PANELS; ++p)
        for (int plane = 0; plane < PLANES; ++plane) dot[plane][r][p] = broadcast_int(0);
    }
#pragma GCC unroll 4
    for (int pair = 0; pair < quads / 2; ++pair) {
      U8 even[PANELS], odd[PANELS];
      for (int p = 0; p < PANELS; ++p) load_quads<F>(at + p * w.panel_bytes, pair, quads, even[p], odd[p]);
      for (int r = 0; r < ROWS; ++r)
        for (int plane = 0; plane < PLANES; ++plane) {
          const int8_t* quad = x.codes[plane] + first + r * inputs + input + pair * 8;
          const Quad x_even = broadcast_quad(quad), x_odd = broadcast_quad(quad + 4);
          for (int p = 0; p < PANELS; ++p) dot[plane][r][p] = dot4(dot[plane][r][p], even[p], x_even);
          for (int p = 0; p < PANELS; ++p) dot[plane][r][p] = dot4(dot[plane][r][p], odd[p], x_odd);
        }
    }
    F32 d[PANELS], m[PANELS];
    for (int p = 0; p < PANELS; ++p) {
      const uint8_t* scales = at + p * w.panel_bytes + codes;
      d[p] = load_scale<WIDE>(scales);
      if constexpr (AFFINE) m[p] = load_scale<WIDE>(scales + scale_bytes);
    }
    for (int r = 0; r < ROWS; ++r) {
      const size_t place = first + r * inputs + input;
      const F32 scale = broadcast(x.scales[place / SCALE_INPUTS]);
      const int32_t* sums = x.sums + place / SUM_INPUTS;
      const I32 shift = broadcast_int((w.offset - zero) * (GROUP == SUM_INPUTS ? sums[0] : sums[0] + sums[1]));
      for (int p = 0; p < PANELS; ++p) {
        I32 all = dot[0][r][p];
        if constexpr (PLANES == 2) all = shift_left(all, 8) + dot[1][r][p];
        if constexpr (!AFFINE) all = all - shift;
        total[r][p] = fma(to_float(all), d[p] * scale, total[r][p]);
        if constexpr (AFFINE) total[r][p] = fma(m[p], broadcast(x.totals[place / SCALE_INPUTS]), total[r][p]);
      }
    }
  }
  store_tile(w, total, row, panel, out, stride, add);
}

template <Format F, int GROUP, bool AFFINE, bool WIDE, int PLANES, int PANELS>
inline void multiply_rows(const Matrix& w, const Rows& x, int rows, int panel, float* out, size_t stride, bool add) {
  int row = 0;
  for (; row + 4 <= rows; row += 4) multiply_tile<F, GROUP, AFFINE, WIDE, PLANES, 4, PANELS>(w, x, row, panel, out, stride, add);
  for (; row < rows; ++row) multiply_tile<F, GROUP, AFFINE, WIDE, PLANES, 1, PANELS>(w, x, row, panel, out, stride, add);
}

template <Format F, int GROUP, bool AFFINE, bool WIDE, int PLANES>
inline void multiply_codes(const Matrix& w, const Rows& x, int rows, int from, int to, float* out, size_t stride, bool add) {
  int panel = from;
  for (; panel + 2 <= to; panel += 2) multiply_rows<F, GROUP, AFFINE, WIDE, PLANES, 2>(w, x, rows, panel, out, stride, add);
  if (panel < to) multiply_rows<F, GROUP, AFFINE, WIDE, PLANES, 1>(w, x, rows, panel, out, stride, add);
}

// ---- float weights ----

template <Format F>
inline F32 load_weights(const uint8_t* p) {
  if constexpr (F == Format::f32) return load(reinterpret_cast<const float*>(p));
  else if constexpr (F == Format::f16) return load_f16(reinterpret_cast<const uint16_t*>(p));
  else return load_bf16(reinterpret_cast<const uint16_t*>(p));
}

template <Format F, int ROWS, int PANELS>
inline void multiply_float_tile(const Matrix& w, const Rows& x, int row, int panel, float* out, size_t stride, bool add) {
  constexpr int bytes = LANES * (F == Format::f32 ? 4 : 2);
  F32 total[ROWS][PANELS];
  for (auto& line : total)
    for (auto& value : line) value = broadcast(0);
  const uint8_t* at = w.data + panel * w.panel_bytes;
  const float* values = x.values + row * x.stride;
  for (int input = 0; input < x.inputs; ++input, at += bytes) {
    F32 weight[PANELS];
    for (int p = 0; p < PANELS; ++p) weight[p] = load_weights<F>(at + p * w.panel_bytes);
    for (int r = 0; r < ROWS; ++r) {
      const F32 value = broadcast(values[r * x.stride + input]);
      for (int p = 0; p < PANELS; ++p) total[r][p] = fma(value, weight[p], total[r][p]);
    }
  }
  store_tile(w, total, row, panel, out, stride, add);
}

template <Format F, int PANELS>
inline void multiply_float_rows(const Matrix& w, const Rows& x, int rows, int panel, float* out, size_t stride, bool add) {
  int row = 0;
  for (; row + 4 <= rows; row += 4) multiply_float_tile<F, 4, PANELS>(w, x, row, panel, out, stride, add);
  for (; row < rows; ++row) multiply_float_tile<F, 1, PANELS>(w, x, row, panel, out, stride, add);
}

template <Format F>
inline void multiply_float(const Matrix& w, const Rows& x, int rows, int from, int to, float* out, size_t stride, bool add) {
  int panel = from;
  for (; panel + 4 <= to; panel += 4) multiply_float_rows<F, 4>(w, x, rows, panel, out, stride, add);
  for (; panel < to; ++panel) multiply_float_rows<F, 1>(w, x, rows, panel, out, stride, add);
}

// ---- the choice of a kernel ----

template <int PLANES>
inline void multiply_planes(const Matrix& w, const Rows& x, int rows, int from, int to, float* out, size_t stride, bool add) {
  const auto run = [&]<Format F, int GROUP, bool AFFINE, bool WIDE>() {
    multiply_codes<F, GROUP, AFFINE, WIDE, PLANES>(w, x, rows, from, to, out, stride, add);
  };
  switch (w.format) {
    case Format::codes4:
      if (!w.affine) return run.template operator()<Format::codes4, 32, false, false>();
      if (w.wide) return run.template operator()<Format::codes4, 32, true, true>();
      return run.template operator()<Format::codes4, 32, true, false>();
    case Format::codes5:
      if (!w.affine) return run.template operator()<Format::codes5, 32, false, false>();
      if (w.wide) return run.template operator()<Format::codes5, 32, true, true>();
      return run.template operator()<Format::codes5, 32, true, false>();
    case Format::codes6:
      return run.template operator()<Format::codes6, 16, false, true>();
    default:
      return run.template operator()<Format::codes8, 32, false, false>();
  }
}

inline void multiply(const Matrix& w, const Rows& x, int rows, int from, int to, float* out, size_t stride, bool add) {
  switch (w.format) {
    case Format::f32: return multiply_float<Format::f32>(w, x, rows, from, to, out, stride, add);
    case Format::f16: return multiply_float<Format::f16>(w, x, rows, from, to, out, stride, add);
    case Format::bf16: return multiply_float<Format::bf16>(w, x, rows, from, to, out, stride, add);
    default:
      if (x.planes == 1) return multiply_planes<1>(w, x, rows, from, to, out, stride, add);
      return multiply_planes<2>(w, x, rows, from, to, out, stride, add);
  }
}

}  // namespace HEADRACE_ISA

// Elementary functions on sixteen lanes, to about two units in the last place over the whole range.
//
// The coefficients are minimax fits of our own; each comment gives the fitted function and its domain.
#pragma once

#include <limits>

#include "simd.h"

namespace HEADRACE_ISA {

template <int N>
inline F32 polynomial(const float (&coefficients)[N], F32 x) {
  F32 value = broadcast(coefficients[N - 1]);
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; --i) value = fma(value, x, broadcast(coefficients[i]));
  return value;
}

// e^x = 2^power * (1 + excess); the excess keeps the precision that 1 + excess loses near 0.
struct Power {
  I32 power;
  F32 excess;
};

inline Power reduce(F32 x) {
  constexpr float ln2_high = 0x1.62e43p-1f, ln2_low = -0x1.05c61p-29f;
  // (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2
  constexpr float fit[] = {0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.5558f4p-5f, 0x1.123a6cp-7f, 0x1.6a2352p-10f};
  const F32 n = round(x * broadcast(0x1.715476p0f));
  const F32 r = fma(n, broadcast(-ln2_low), fma(n, broadcast(-ln2_high), x));
  return {to_int(n), fma(r * r, polynomial(fit, r), r)};
}

// 0 where the result would be subnormal.
inline F32 exp(F32 x) {
  const Power e = reduce(x);
  const F32 value = as_float(as_int(broadcast(1) + e.excess) + shift_left(e.power, 23));
  const F32 bounded = select_less(x, broadcast(-87.33f), broadcast(0), value);
  return select_less(broadcast(88.72283f), x, broadcast(std::numeric_limits<float>::infinity()), bounded);
}

// -m / (2 + m) with m = e^(-2|x|) - 1, which is precise near 0 as well.
inline F32 tanh(F32 x) {
  const Power e = reduce(min(broadcast(10), abs(x)) * broadcast(-2));  // tanh(10) is 1 in fp32
  const F32 scale = as_float(shift_left(e.power + broadcast_int(127), 23));
  const F32 m = fma(scale, e.excess, scale - broadcast(1));
  const F32 negative = m / (m + broadcast(2));
  return select_less(x, broadcast(0), negative, broadcast(0) - negative);
}

inline F32 sigmoid(F32 x) { return broadcast(1) / (broadcast(1) + exp(broadcast(0) - x)); }

inline F32 silu(F32 x) { return x / (broadcast(1) + exp(broadcast(0) - x)); }

inline F32 relu(F32 x) { return max(broadcast(0), x); }

// x * sigmoid(2y) equals x / 2 * (1 + tanh(y)).
inline F32 gelu_tanh(F32 x) {
  constexpr float twice = 1.5957691216057308f;  // 2 * sqrt(2 / pi)
  const F32 y = x * fma(x * x, broadcast(twice * 0.044715f), broadcast(twice));
  return x / (broadcast(1) + exp(broadcast(0) - y));
}

// The normal distribution below -t, t >= 0: e^(-t^2 / 2) times a smooth function of (t - 3.5) / (t + 3.5).
inline F32 normal_tail(F32 t) {
  // e^(t^2 / 2) * normal(-t) * (1 + t / 3.5) for 0 <= t <= 14.5
  constexpr float fit[] = {0.2126903087f, -0.1615890712f, 0.0901214406f,  -0.0331580117f, 0.0049732509f,
                           0.0018551759f, -0.0009072310f, -0.0001414122f, 0.0001205414f,  0.0000316250f};
  const F32 near = min(broadcast(14), t);  // beyond 13.3 the tail is 0 in fp32
  const F32 w = broadcast(3.5f) / (near + broadcast(3.5f));
  const F32 square = near * near, rest = fma(near, near, broadcast(0) - square);
  const F32 bell = exp(square * broadcast(-0.5f)) * fma(rest, broadcast(-0.5f), broadcast(1));
  return polynomial(fit, fma(w, broadcast(-2), broadcast(1))) * w * bell;
}

// x * normal(x), the tail taken on the side where it does not cancel.
inline F32 gelu(F32 x) {
  const F32 size = abs(x);
  return fma(broadcast(0) - size, normal_tail(size), relu(x));
}

}  // namespace HEADRACE_ISA

// Sixteen lanes of float or int32, written once for each instruction set.
//
// Every function is defined by IEEE arithmetic on single lanes (fused multiply-add, correctly rounded
// division and square root, exact integer dot products), so all instruction sets give the same bits.
// The file is compiled once for each of them, under the namespace that HEADRACE_ISA names.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(HEADRACE_PORTABLE)
#include "simd_portable.h"
#elif defined(__AVX512VNNI__)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "simd_neon.h"
#endif

namespace HEADRACE_ISA {

constexpr int LANES = 16;

// Sum of the lanes by halves: 8 + 8, 4 + 4, ...
inline float sum_lanes(F32 x) {
  alignas(64) float v[LANES];
  store(v, x);
  for (int half = LANES / 2; half; half /= 2)
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

// The first `count` values; the other lanes are zero.
inline F32 load_part(const float* from, int count) {
  alignas(64) float v[LANES] = {};
  std::memcpy(v, from, count * sizeof(float));
  return load(v);
}

inline void store_part(float* to, F32 x, int count) {
  alignas(64) float v[LANES];
  store(v, x);
  std::memcpy(to, v, count * sizeof(float));
}

// All lanes where `count` is 16 or more.
inline F32 load_some(const float* from, int count) { return count >= LANES ? load(from) : load_part(from, count); }

inline void store_some(float* to, F32 x, int count) {
  if (count >= LANES) store(to, x);
  else store_part(to, x, count);
}

}  // namespace HEADRACE_ISA

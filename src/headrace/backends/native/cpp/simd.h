// Sixteen lanes of float or int32, written once for each instruction set.
//
// Every function is defined by IEEE arithmetic on single lanes (fused multiply-add, correctly rounded
// division and square root, exact integer dot products), so all instruction sets give the same bits.
// The file is compiled once for each of them, under the namespace that HEADRACE_ISA names.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512VNNI__)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#else
#include "simd_portable.h"
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

inline float max_lanes(F32 x) {
  alignas(64) float v[LANES];
  store(v, x);
  float best = v[0];
  for (int i = 1; i < LANES; ++i) best = v[i] > best ? v[i] : best;
  return best;
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

}  // namespace HEADRACE_ISA

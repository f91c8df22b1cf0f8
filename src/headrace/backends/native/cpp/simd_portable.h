// simd.h in plain C++: the oracle of the other instruction sets, and what runs where none of them is.
#pragma once

#include <bit>
#include <cmath>

namespace HEADRACE_ISA {

constexpr int REGISTERS = 4;  // values of F32 that they hold

struct F32 { float v[16]; };
struct I32 { int32_t v[16]; };
struct U8 { uint8_t v[64]; };

template <class Out, class F>
inline Out each(F f) {
  Out out;
  for (int i = 0; i < 16; ++i) out.v[i] = f(i);
  return out;
}

inline float half_to_float(uint16_t h) {
  const uint32_t sign = static_cast<uint32_t>(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  const float value = std::bit_cast<float>(rest << 13) * std::bit_cast<float>(0x77800000);  // 2^112
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}
// Rounds to nearest, ties to even; what is too large becomes infinity.
inline uint16_t float_to_half(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x), sign = bits >> 16 & 0x8000;
  const uint32_t size = bits & 0x7fffffff;
  if (size > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (size >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (size < 0x38800000) {  // subnormal: adding one half puts the last place of a half at the last bit
    const float shifted = std::bit_cast<float>(size) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000));
  }
  const uint32_t rounded = size + 0xfff + (size >> 13 & 1);
  return static_cast<uint16_t>(sign | (rounded - 0x38000000) >> 13);
}

inline F32 broadcast(float x) { return each<F32>([&](int) { return x; }); }
inline F32 load(const float* p) { return each<F32>([&](int i) { return p[i]; }); }
inline void store(float* p, F32 x) { std::memcpy(p, x.v, sizeof x.v); }
inline F32 load_bf16(const uint16_t* p) {
  return each<F32>([&](int i) { return std::bit_cast<float>(static_cast<uint32_t>(p[i]) << 16); });
}
inline F32 load_f16(const uint16_t* p) { return each<F32>([&](int i) { return half_to_float(p[i]); }); }
inline void store_f16(uint16_t* p, F32 x) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(x.v[i]);
}
inline F32 load_i8(const int8_t* p) { return each<F32>([&](int i) { return static_cast<float>(p[i]); }); }

inline F32 operator+(F32 a, F32 b) { return each<F32>([&](int i) { return a.v[i] + b.v[i]; }); }
inline F32 operator-(F32 a, F32 b) { return each<F32>([&](int i) { return a.v[i] - b.v[i]; }); }
inline F32 operator*(F32 a, F32 b) { return each<F32>([&](int i) { return a.v[i] * b.v[i]; }); }
inline F32 operator/(F32 a, F32 b) { return each<F32>([&](int i) { return a.v[i] / b.v[i]; }); }
inline F32 fma(F32 a, F32 b, F32 c) { return each<F32>([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); }); }
inline F32 max(F32 a, F32 b) { return each<F32>([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
inline F32 min(F32 a, F32 b) { return each<F32>([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
inline F32 abs(F32 a) { return each<F32>([&](int i) { return std::fabs(a.v[i]); }); }
inline F32 round(F32 a) { return each<F32>([&](int i) { return std::nearbyintf(a.v[i]); }); }
inline F32 select_less(F32 a, F32 b, F32 x, F32 y) {
  return each<F32>([&](int i) { return a.v[i] < b.v[i] ? x.v[i] : y.v[i]; });
}
inline F32 keep_lanes(F32 x, int from, int to, F32 other) {
  return each<F32>([&](int i) { return from <= i && i < to ? x.v[i] : other.v[i]; });
}

inline float max_lanes(F32 a) {
  float best = a.v[0];
  for (float value : a.v) best = value > best ? value : best;
  return best;
}

inline I32 broadcast_int(int32_t x) { return each<I32>([&](int) { return x; }); }
// As in vectors: what an int32 cannot hold wraps around.
inline int32_t wrapped(uint32_t x) { return static_cast<int32_t>(x); }
inline I32 operator+(I32 a, I32 b) { return each<I32>([&](int i) { return wrapped(uint32_t(a.v[i]) + b.v[i]); }); }
inline I32 operator-(I32 a, I32 b) { return each<I32>([&](int i) { return wrapped(uint32_t(a.v[i]) - b.v[i]); }); }
inline int32_t sum_lanes(I32 a) {
  uint32_t sum = 0;
  for (int32_t value : a.v) sum += value;
  return wrapped(sum);
}
inline I32 shift_left(I32 a, int bits) {
  return each<I32>([&](int i) { return wrapped(uint32_t(a.v[i]) << bits); });
}
inline F32 to_float(I32 a) { return each<F32>([&](int i) { return static_cast<float>(a.v[i]); }); }
// The least int32 where there is no such number, as on x86.
inline I32 to_int(F32 a) {
  return each<I32>([&](int i) {
    const float whole = std::nearbyintf(a.v[i]);
    return -0x1p31f <= whole && whole < 0x1p31f ? static_cast<int32_t>(whole) : INT32_MIN;
  });
}
inline F32 as_float(I32 a) { return each<F32>([&](int i) { return std::bit_cast<float>(a.v[i]); }); }
inline I32 as_int(F32 a) { return each<I32>([&](int i) { return std::bit_cast<int32_t>(a.v[i]); }); }
inline void store_bytes(int8_t* p, I32 a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(a.v[i]);
}

inline U8 load_codes(const uint8_t* p) {
  U8 out;
  std::memcpy(out.v, p, sizeof out.v);
  return out;
}
constexpr int BYTE_ZERO = 0;
inline U8 load_bytes(const uint8_t* p) { return load_codes(p); }
inline U8 low_nibbles(U8 a) {
  for (auto& byte : a.v) byte &= 15;
  return a;
}
inline U8 high_nibbles(U8 a) {
  for (auto& byte : a.v) byte >>= 4;
  return a;
}
inline U8 add_bit(U8 a, const uint8_t* p, int bit) {
  for (int i = 0; i < 64; ++i) a.v[i] = static_cast<uint8_t>(a.v[i] | (p[i / 8] >> (i % 8) & 1) << bit);
  return a;
}
struct Quad { int8_t v[4]; };
inline Quad broadcast_quad(const int8_t* x) { return {{x[0], x[1], x[2], x[3]}}; }
inline I32 dot4(I32 acc, U8 w, Quad x) {
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) acc.v[i] = wrapped(uint32_t(acc.v[i]) + w.v[4 * i + j] * x.v[j]);
  return acc;
}

}  // namespace HEADRACE_ISA

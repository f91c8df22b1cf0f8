// simd.h for AVX-512 with VNNI.
#pragma once

#include <immintrin.h>

namespace HEADRACE_ISA {

constexpr int REGISTERS = 32;  // values of F32 that they hold

struct F32 { __m512 v; };
struct I32 { __m512i v; };
struct U8 { __m512i v; };  // 16 lanes of 4 bytes

inline F32 broadcast(float x) { return {_mm512_set1_ps(x)}; }
inline F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, F32 x) { _mm512_storeu_ps(p, x.v); }
inline F32 load_bf16(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline F32 load_f16(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
inline void store_f16(uint16_t* p, F32 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline F32 load_i8(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}

inline F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
inline F32 round(F32 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a < b ? x : y
inline F32 select_less(F32 a, F32 b, F32 x, F32 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), y.v, x.v)};
}
// Lanes [from, to) of x, `other` elsewhere.
inline F32 keep_lanes(F32 x, int from, int to, F32 other) {
  const auto mask = static_cast<__mmask16>(((1u << to) - 1u) & ~((1u << from) - 1u));
  return {_mm512_mask_blend_ps(mask, other.v, x.v)};
}

inline float max_lanes(F32 x) { return _mm512_reduce_max_ps(x.v); }

inline I32 broadcast_int(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline int32_t sum_lanes(I32 a) { return _mm512_reduce_add_epi32(a.v); }
inline I32 shift_left(I32 a, int bits) { return {_mm512_slli_epi32(a.v, static_cast<unsigned>(bits))}; }
inline F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I32 to_int(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }  // to nearest, ties to even
inline F32 as_float(I32 a) { return {_mm512_castsi512_ps(a.v)}; }
inline I32 as_int(F32 a) { return {_mm512_castps_si512(a.v)}; }
// The low byte of each lane, 16 bytes; the values must fit.
inline void store_bytes(int8_t* p, I32 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}

inline U8 load_codes(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
// Codes of 8 bits, each less BYTE_ZERO: as dot4 takes them.
constexpr int BYTE_ZERO = 0;
inline U8 load_bytes(const uint8_t* p) { return load_codes(p); }
inline U8 low_nibbles(U8 a) { return {_mm512_and_si512(a.v, _mm512_set1_epi8(15))}; }
inline U8 high_nibbles(U8 a) {
  return {_mm512_and_si512(_mm512_srli_epi16(a.v, 4), _mm512_set1_epi8(15))};
}
// Sets bit `bit` of every byte whose place is set in the 64 bits at p.
inline U8 add_bit(U8 a, const uint8_t* p, int bit) {
  uint64_t mask;
  std::memcpy(&mask, p, sizeof mask);
  return {_mm512_mask_add_epi8(a.v, mask, a.v, _mm512_set1_epi8(static_cast<char>(1 << bit)))};
}
struct Quad { __m512i v; };  // the same four bytes in every lane
inline Quad broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return {_mm512_set1_epi32(quad)};
}
// acc + in each lane the product of its four codes with the quad's four signed bytes.
inline I32 dot4(I32 acc, U8 w, Quad x) { return {_mm512_dpbusd_epi32(acc.v, w.v, x.v)}; }

}  // namespace HEADRACE_ISA

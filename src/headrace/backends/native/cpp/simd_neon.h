// simd.h for Arm's 64-bit NEON with integer dot products: four quarters of four lanes.
#pragma once

#include <arm_neon.h>

namespace HEADRACE_ISA {

constexpr int REGISTERS = 8;  // values of F32 that they hold

struct F32 { float32x4_t v[4]; };
struct I32 { int32x4_t v[4]; };
struct U8 { uint8x16_t v[4]; };

template <class Out, class F>
inline Out quarters(F f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline F32 broadcast(float x) { return quarters<F32>([&](int) { return vdupq_n_f32(x); }); }
inline F32 load(const float* p) { return quarters<F32>([&](int i) { return vld1q_f32(p + 4 * i); }); }
inline void store(float* p, F32 x) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.v[i]);
}
inline F32 load_bf16(const uint16_t* p) {
  return quarters<F32>([&](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)); });
}
inline F32 load_i8(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_high_s8(bytes);
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
}
inline F32 load_f16(const uint16_t* p) {
  return quarters<F32>([&](int i) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))); });
}
inline void store_f16(uint16_t* p, F32 x) {
  for (int i = 0; i < 4; ++i) vst1_u16(p + 4 * i, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}

inline F32 operator+(F32 a, F32 b) { return quarters<F32>([&](int i) { return vaddq_f32(a.v[i], b.v[i]); }); }
inline F32 operator-(F32 a, F32 b) { return quarters<F32>([&](int i) { return vsubq_f32(a.v[i], b.v[i]); }); }
inline F32 operator*(F32 a, F32 b) { return quarters<F32>([&](int i) { return vmulq_f32(a.v[i], b.v[i]); }); }
inline F32 operator/(F32 a, F32 b) { return quarters<F32>([&](int i) { return vdivq_f32(a.v[i], b.v[i]); }); }
inline F32 fma(F32 a, F32 b, F32 c) { return quarters<F32>([&](int i) { return vfmaq_f32(c.v[i], a.v[i], b.v[i]); }); }
inline F32 select_less(F32 a, F32 b, F32 x, F32 y) {
  return quarters<F32>([&](int i) { return vbslq_f32(vcltq_f32(a.v[i], b.v[i]), x.v[i], y.v[i]); });
}
// Not vmaxq and vminq: of zeros, and where one value is no number, the second has to come back.
inline F32 max(F32 a, F32 b) { return select_less(b, a, a, b); }
inline F32 min(F32 a, F32 b) { return select_less(a, b, a, b); }
inline F32 abs(F32 a) { return quarters<F32>([&](int i) { return vabsq_f32(a.v[i]); }); }
inline F32 round(F32 a) { return quarters<F32>([&](int i) { return vrndnq_f32(a.v[i]); }); }
inline F32 keep_lanes(F32 x, int from, int to, F32 other) {
  const int32x4_t places = {0, 1, 2, 3};
  return quarters<F32>([&](int i) {
    const int32x4_t lane = vaddq_s32(places, vdupq_n_s32(4 * i));
    const uint32x4_t inside = vandq_u32(vcgeq_s32(lane, vdupq_n_s32(from)), vcltq_s32(lane, vdupq_n_s32(to)));
    return vbslq_f32(inside, x.v[i], other.v[i]);
  });
}
inline float max_lanes(F32 a) { return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.v[0], a.v[1]), vmaxq_f32(a.v[2], a.v[3]))); }

inline I32 broadcast_int(int32_t x) { return quarters<I32>([&](int) { return vdupq_n_s32(x); }); }
inline I32 operator+(I32 a, I32 b) { return quarters<I32>([&](int i) { return vaddq_s32(a.v[i], b.v[i]); }); }
inline I32 operator-(I32 a, I32 b) { return quarters<I32>([&](int i) { return vsubq_s32(a.v[i], b.v[i]); }); }
inline I32 shift_left(I32 a, int bits) {
  return quarters<I32>([&](int i) { return vshlq_s32(a.v[i], vdupq_n_s32(bits)); });
}
inline F32 to_float(I32 a) { return quarters<F32>([&](int i) { return vcvtq_f32_s32(a.v[i]); }); }
inline I32 to_int(F32 a) { return quarters<I32>([&](int i) { return vcvtnq_s32_f32(a.v[i]); }); }
inline F32 as_float(I32 a) { return quarters<F32>([&](int i) { return vreinterpretq_f32_s32(a.v[i]); }); }
inline I32 as_int(F32 a) { return quarters<I32>([&](int i) { return vreinterpretq_s32_f32(a.v[i]); }); }
inline int32_t sum_lanes(I32 a) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(a.v[0], a.v[1]), vaddq_s32(a.v[2], a.v[3])));
}
inline void store_bytes(int8_t* p, I32 a) {
  const int16x8_t low = vcombine_s16(vmovn_s32(a.v[0]), vmovn_s32(a.v[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(a.v[2]), vmovn_s32(a.v[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

inline U8 load_codes(const uint8_t* p) { return quarters<U8>([&](int i) { return vld1q_u8(p + 16 * i); }); }
// vdotq_s32 takes the codes as signed bytes, which those of 8 bits are not.
constexpr int BYTE_ZERO = 128;
inline U8 load_bytes(const uint8_t* p) {
  return quarters<U8>([&](int i) { return veorq_u8(vld1q_u8(p + 16 * i), vdupq_n_u8(128)); });
}
inline U8 low_nibbles(U8 a) { return quarters<U8>([&](int i) { return vandq_u8(a.v[i], vdupq_n_u8(15)); }); }
inline U8 high_nibbles(U8 a) { return quarters<U8>([&](int i) { return vshrq_n_u8(a.v[i], 4); }); }
inline U8 add_bit(U8 a, const uint8_t* p, int bit) {
  const uint8x16_t one = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201)), value = vdupq_n_u8(1 << bit);
  return quarters<U8>([&](int i) {
    const uint8x16_t byte = vcombine_u8(vdup_n_u8(p[2 * i]), vdup_n_u8(p[2 * i + 1]));
    return vorrq_u8(a.v[i], vandq_u8(vtstq_u8(byte, one), value));
  });
}
struct Quad { int8x16_t v; };
inline Quad broadcast_quad(const int8_t* x) {
  int32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return {vreinterpretq_s8_s32(vdupq_n_s32(quad))};
}
inline I32 dot4(I32 acc, U8 w, Quad x) {
  return quarters<I32>([&](int i) { return vdotq_s32(acc.v[i], vreinterpretq_s8_u8(w.v[i]), x.v); });
}

}  // namespace HEADRACE_ISA

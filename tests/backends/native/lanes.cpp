// The lane functions of the instruction set in the header TESTED against the portable ones, bit for bit.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>

#define HEADRACE_ISA portable
#include "simd_portable.h"
#undef HEADRACE_ISA
#define HEADRACE_ISA tested
#include TESTED

namespace {

constexpr int LANES = 16;
int failures = 0;
std::mt19937 draw(1);

uint32_t word() { return static_cast<uint32_t>(draw()); }

// What is no number has many forms; any of them will do.
bool is_same(uint32_t a, uint32_t b, bool floats) {
  return a == b || (floats && std::isnan(std::bit_cast<float>(a)) && std::isnan(std::bit_cast<float>(b)));
}

template <class Wanted, class Found>
void compare(const char* name, Wanted wanted, Found found) {
  constexpr bool floats = requires { to_int(wanted); };
  uint32_t a[LANES], b[LANES];
  std::memcpy(a, &wanted, sizeof a);
  std::memcpy(b, &found, sizeof b);
  for (int i = 0; i < LANES; ++i) {
    if (is_same(a[i], b[i], floats)) continue;
    if (++failures <= 20) std::printf("%s: lane %d has the bits %08x, not %08x\n", name, i, b[i], a[i]);
    return;
  }
}

// The same expression in both namespaces.
#define CHECK(...)                                                                        \
  compare(#__VA_ARGS__, [&] { using namespace portable; return __VA_ARGS__; }(),          \
          [&] { using namespace tested; return __VA_ARGS__; }())

// Numbers of every kind: any bits, few bits, a few small ones that are often equal, zeros of both signs.
float any_float() {
  switch (word() % 4) {
    case 0: return std::bit_cast<float>(word());
    case 1: return std::bit_cast<float>(word() & 0xfff00000);
    case 2: return static_cast<float>(word() % 8) / 2 - 2;
    default: return word() % 2 ? 0.0f : -0.0f;
  }
}

// Within what an int32 holds, half of them ties.
float small_float() {
  const float half = static_cast<float>(static_cast<int>(word() % 65536) - 32768) / 2;
  return word() % 2 ? half : half * std::bit_cast<float>(0x3f000000 | (word() >> 9));
}

void check_floats() {
  const int32_t number = static_cast<int32_t>(word());
  float a[LANES], b[LANES], c[LANES], small[LANES], other[LANES];
  for (int i = 0; i < LANES; ++i) a[i] = any_float(), b[i] = any_float(), c[i] = any_float();
  for (int i = 0; i < LANES; ++i) small[i] = small_float(), other[i] = small_float();
  CHECK(broadcast(a[0]));
  CHECK(load(a) + load(b));
  CHECK(load(a) - load(b));
  CHECK(load(a) * load(b));
  CHECK(load(a) / load(b));
  CHECK(fma(load(a), load(b), load(c)));
  CHECK(fma(load(small), load(small), load(c)));
  CHECK(max(load(a), load(b)));
  CHECK(min(load(a), load(b)));
  CHECK(abs(load(a)));
  CHECK(round(load(a)));
  CHECK(round(load(small)));
  CHECK(select_less(load(a), load(b), load(b), load(c)));
  CHECK(broadcast_int(number));
  CHECK(to_int(load(small)) + to_int(load(other)));
  CHECK(to_int(load(small)) - to_int(load(other)));
  CHECK(as_int(load(a)) + as_int(load(b)));
  CHECK(as_int(load(a)) - as_int(load(b)));
  CHECK(broadcast_int(sum_lanes(as_int(load(a)))));
  CHECK(broadcast_int(sum_lanes(to_int(load(small)))));
  CHECK(broadcast(max_lanes(load(small))));
  CHECK(shift_left(as_int(load(a)), 8));
  CHECK(shift_left(as_int(load(a)), 23));
  CHECK(as_float(as_int(load(a))));
  CHECK(to_float(as_int(load(a))));
  CHECK(to_int(load(small)));
}

void check_kept_lanes() {
  float a[LANES], b[LANES];
  for (int i = 0; i < LANES; ++i) a[i] = any_float(), b[i] = any_float();
  for (int from = 0; from <= LANES; ++from)
    for (int to = 0; to <= LANES; ++to) CHECK(keep_lanes(load(a), from, to, load(b)));
}

void check_every_half() {
  for (uint32_t first = 0; first < 65536; first += LANES) {
    uint16_t halves[LANES], stored[LANES];
    float between[3][LANES];
    for (uint32_t i = 0; i < LANES; ++i) {
      halves[i] = static_cast<uint16_t>(first + i);
      const float here = portable::half_to_float(halves[i]);
      const float next = portable::half_to_float(static_cast<uint16_t>(halves[i] + 1));
      between[1][i] = here / 2 + next / 2;
      between[0][i] = std::nextafter(between[1][i], here);
      between[2][i] = std::nextafter(between[1][i], next);
    }
    CHECK(load_f16(halves));
    CHECK(load_bf16(halves));
    CHECK((store_f16(stored, load_f16(halves)), load_f16(stored)));
    for (const auto& values : between) CHECK((store_f16(stored, load(values)), load_f16(stored)));
  }
}

void check_stored_halves() {
  float a[LANES];
  uint16_t stored[LANES];
  for (float& value : a) value = word() % 2 ? any_float() : small_float() * 8;
  CHECK((store_f16(stored, load(a)), load_f16(stored)));
}

void check_bytes() {
  float a[LANES];
  int8_t bytes[LANES], stored[LANES];
  for (int8_t& value : bytes) value = static_cast<int8_t>(word());
  for (float& value : a) value = static_cast<float>(static_cast<int>(word() % 256) - 128);
  CHECK(load_i8(bytes));
  CHECK((store_bytes(stored, to_int(load(a))), load_i8(stored)));
}

void check_codes() {
  constexpr int8_t units[4][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}, {0, 0, 0, 1}};
  uint8_t codes[64], planes[16];
  int8_t quad[4];
  const bool extreme = word() % 2;
  for (uint8_t& code : codes) code = static_cast<uint8_t>(extreme ? 255 * (word() % 2) : word());
  for (uint8_t& bits : planes) bits = static_cast<uint8_t>(word());
  for (int8_t& code : quad) code = static_cast<int8_t>(extreme ? -128 : word());
  const int32_t start = static_cast<int32_t>(word() % 2000000) - 1000000, sum = quad[0] + quad[1] + quad[2] + quad[3];
  for (const int8_t* one : units) {
    CHECK(dot4(broadcast_int(0), low_nibbles(load_codes(codes)), broadcast_quad(one)));
    CHECK(dot4(broadcast_int(0), high_nibbles(load_codes(codes)), broadcast_quad(one)));
    CHECK(dot4(broadcast_int(0), add_bit(low_nibbles(load_codes(codes)), planes, 4), broadcast_quad(one)));
    CHECK(dot4(broadcast_int(BYTE_ZERO), load_bytes(codes), broadcast_quad(one)));
  }
  CHECK(dot4(broadcast_int(start), low_nibbles(load_codes(codes)), broadcast_quad(quad)));
  CHECK(dot4(broadcast_int(start), add_bit(add_bit(high_nibbles(load_codes(codes)), planes, 4), planes + 8, 5),
             broadcast_quad(quad)));
  CHECK(dot4(broadcast_int(start + BYTE_ZERO * sum), load_bytes(codes), broadcast_quad(quad)));
}

}  // namespace

int main() {
  check_every_half();
  check_kept_lanes();
  for (int trial = 0; trial < 20000; ++trial) {
    check_floats();
    check_stored_halves();
    check_bytes();
    check_codes();
  }
  if (failures) std::printf("%d comparisons failed\n", failures);
  return failures ? 1 : 0;
}

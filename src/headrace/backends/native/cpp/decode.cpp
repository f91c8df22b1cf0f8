#include "decode.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

#define HEADRACE_ISA scalar
#include "simd_portable.h"

namespace headrace {

namespace {

float value_at(const uint8_t* p, int index, bool wide) {
  if (wide) {
    float value;
    std::memcpy(&value, p + 4 * index, sizeof value);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, p + 2 * index, sizeof half);
  return scalar::half_to_float(half);
}

// The code of input `input` of a group, for output `lane` of the panel.
int code_at(const Matrix& w, const uint8_t* group, int lane, int input) {
  const int quad = input / 4, place = 4 * lane + input % 4, quads = w.group / 4;
  if (w.format == Format::codes8) return group[quad * 64 + place];
  const uint8_t both = group[quad / 2 * 64 + place];
  int code = quad % 2 ? both >> 4 : both & 15;
  const int planes = w.format == Format::codes4 ? 0 : w.format == Format::codes5 ? 1 : 2;
  for (int plane = 0; plane < planes; ++plane) {
    const uint8_t* bits = group + quads * 32 + (plane * quads + quad) * 8;
    code |= (bits[place / 8] >> (place % 8) & 1) << (4 + plane);
  }
  return code;
}

int code_bytes(const Matrix& w) {
  const int quads = w.group / 4;
  if (w.format == Format::codes8) return quads * 64;
  return quads * (32 + 8 * (w.format == Format::codes4 ? 0 : w.format == Format::codes5 ? 1 : 2));
}

void decode_codes(const Matrix& w, const uint8_t* panel, int lane, float* out) {
  const int codes = code_bytes(w), scale_bytes = PANEL * (w.wide ? 4 : 2);
  for (int start = 0; start < w.inputs; start += w.group) {
    const float d = value_at(panel + codes, lane, w.wide);
    const float m = w.affine ? value_at(panel + codes + scale_bytes, lane, w.wide) : 0;
    for (int i = 0; i < w.group; ++i) {
      const int code = code_at(w, panel, lane, i);
      out[start + i] = w.affine ? d * static_cast<float>(code) + m : d * static_cast<float>(code - w.offset);
    }
    panel += codes + scale_bytes * (w.affine ? 2 : 1);
  }
}

}  // namespace

void decode_row(const Matrix& w, int output, float* out) {
  const uint8_t* panel = w.data + output / PANEL * w.panel_bytes;
  const int lane = output % PANEL;
  if (w.quantised()) return decode_codes(w, panel, lane, out);
  for (int i = 0; i < w.inputs; ++i) {
    const int at = i * PANEL + lane;
    if (w.format == Format::bf16) {
      uint16_t half;
      std::memcpy(&half, panel + 2 * at, sizeof half);
      out[i] = std::bit_cast<float>(static_cast<uint32_t>(half) << 16);
    } else {
      out[i] = value_at(panel, at, w.format == Format::f32);
    }
  }
}

void choose_experts(const Kernels& kernels, float* odds, const Route& op, int* order, float* route) {
  const float best = *std::max_element(odds, odds + op.experts);
  kernels.exponentials(odds, op.experts, best, 1, odds);
  float total = 0;
  for (int i = 0; i < op.experts; ++i) total += odds[i];
  for (int i = 0; i < op.experts; ++i) odds[i] /= total;
  std::iota(order, order + op.experts, 0);
  std::stable_sort(order, order + op.experts, [&](int a, int b) { return odds[a] > odds[b]; });
  float kept = 0;
  for (int rank = 0; rank < op.top_k; ++rank) kept += odds[order[rank]];
  for (int rank = 0; rank < op.top_k; ++rank) {
    route[rank] = static_cast<float>(order[rank]);
    route[op.top_k + rank] = op.renormalise ? odds[order[rank]] / kept : odds[order[rank]];
  }
}

}  // namespace headrace

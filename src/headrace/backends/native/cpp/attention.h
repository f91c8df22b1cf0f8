// Attention over pages of 16 positions, for the queries of one tile and one KV head.
//
// A score is one chain over the values of a head, a sum of weights one chain of blocks for each of 16 lanes,
// from the query's first visible block on, and an output value one chain over the positions that the query sees.
// With codes the scale of a key multiplies the finished score, that of a value the weight of its position.
// A key or value that a query does not see enters no sum: it may be anything.
#pragma once

#include <algorithm>
#include <type_traits>

#include "functions.h"
#include "kernels.h"
#include "rows.h"

namespace HEADRACE_ISA {

using headrace::Attention;
using headrace::LayerState;
using headrace::PAGE;
using headrace::StateType;
using headrace::Tile;

static_assert(PAGE == LANES);

// ---- pages ----

inline F32 load_state_values(const float* from) { return load(from); }
inline F32 load_state_values(const uint16_t* from) { return load_f16(from); }
inline F32 load_state_values(const int8_t* from) { return load_i8(from); }

template <class T>
constexpr bool CODED = std::is_same_v<T, int8_t>;

// What a page holds of one KV head: `width` values of each position, and for codes the scales of the positions.
template <class T>
inline T* head_block(void* arena, size_t number, int width) {
  const size_t bytes = PAGE * (width * sizeof(T) + (CODED<T> ? sizeof(float) : 0));
  return reinterpret_cast<T*>(static_cast<uint8_t*>(arena) + number * bytes);
}

template <class T>
inline auto scales_of(T* block, int width) {
  using Scale = std::conditional_t<std::is_const_v<T>, const float, float>;
  return reinterpret_cast<Scale*>(block + static_cast<size_t>(width) * PAGE);
}

// Sixteen positions, times the scales of a block that has some.
template <class T>
inline F32 scaled(F32 positions, const T* block, int width) {
  if constexpr (CODED<T>) return positions * load(scales_of(block, width));
  else return positions;
}

// The step between codes: the largest size is 127 steps. NaN where a value is infinite or NaN.
inline float step_of(const float* x, int dim) {
  F32 most = broadcast(0), nothing = broadcast(0);
  for (int d = 0; d < dim; d += LANES) {
    const F32 values = load_some(x + d, dim - d);
    most = max(most, abs(values));
    nothing = fma(values, broadcast(0), nothing);
  }
  return (max_lanes(most) + sum_lanes(nothing)) / 127;
}

// Keeps the scale of a head's values at one position; returns what its values are multiplied with before they are
// rounded to codes, 0 where they are too small for it to be finite.
template <class T>
inline F32 keep_scale(T* block, int width, int offset, const float* x, int dim) {
  if constexpr (CODED<T>) {
    const float step = step_of(x, dim);
    scales_of(block, width)[offset] = step;
    return broadcast(step > 1e-30f ? 1 / step : 0);
  } else {
    return broadcast(1);
  }
}

inline void store_state_values(float* to, F32 x, F32) { store(to, x); }
inline void store_state_values(uint16_t* to, F32 x, F32) {
  constexpr float most = 65504;  // the largest finite half
  store_f16(to, min(broadcast(most), max(broadcast(-most), x)));
}
inline void store_state_values(int8_t* to, F32 x, F32 factor) {
  // The bound stands second, where it takes the place of a NaN.
  store_bytes(to, to_int(min(max(x * factor, broadcast(-127)), broadcast(127))));
}

template <class T>
inline void store_pages(const Attention& a, const LayerState& state, int page, int offset, const float* k,
                        const float* v) {
  const int padded = a.value_dim();
  for (int head = 0; head < a.kv_heads; ++head, k += a.dim, v += a.dim) {
    const size_t at = static_cast<size_t>(page) * a.kv_heads + head;
    T* keys = head_block<T>(state.keys, at, a.dim);
    T* values = head_block<T>(state.values, at, padded);
    const F32 key_factor = keep_scale(keys, a.dim, offset, k, a.dim);
    const F32 value_factor = keep_scale(values, padded, offset, v, a.dim);
    for (int d = 0; d < a.dim; d += LANES) {
      const int there = std::min(a.dim - d, LANES);
      T column[LANES];
      store_state_values(column, load_some(k + d, there), key_factor);
      for (int i = 0; i < there; ++i) keys[(d + i) * PAGE + offset] = column[i];
      store_state_values(values + offset * padded + d, load_some(v + d, there), value_factor);
    }
  }
}

inline void store_state(const Attention& a, const LayerState& state, int page, int offset, const float* k,
                        const float* v) {
  switch (state.type) {
    case StateType::fp16: return store_pages<uint16_t>(a, state, page, offset, k, v);
    case StateType::fp32: return store_pages<float>(a, state, page, offset, k, v);
    case StateType::int8: return store_pages<int8_t>(a, state, page, offset, k, v);
  }
}

// To the second level: so many lines at once would wait for each other in the first.
inline void prefetch(const void* at) { __builtin_prefetch(at, 0, 2); }

// ---- rows: one query of one head each ----

// Rows that share the loads of keys and values: as many as leave room for their sums in registers.
constexpr int MOST_ROWS = 8;
constexpr int GROUP_ROWS = REGISTERS >= 32 ? MOST_ROWS : 6;

constexpr int AHEAD = 4;  // blocks between a load of values and the prefetch beside it

// Blocks, or vectors of values, that a pass takes for each row: each is a chain that hides another's latency.
constexpr int side_by_side(int rows) {
  for (int columns = 4; columns > 1; columns /= 2)
    if (rows * columns + columns < REGISTERS) return columns;
  return 1;
}

struct Span {
  int from, to;  // positions that a query sees
  int first_lane(int block) const { return std::clamp(from - block * PAGE, 0, PAGE); }
  int last_lane(int block) const { return std::clamp(to - block * PAGE, 0, PAGE); }
};

inline Span visible(const Attention& a, const Tile& tile, int query) {
  const int position = tile.position + query;
  return {a.window ? std::max(0, position - a.window + 1) : 0, a.causal ? std::min(position + 1, tile.end) : tile.end};
}

template <class T, int ROWS>
class RowGroup {
 public:
  RowGroup(const Attention& a, const LayerState& state, const Tile& tile, int kv_head, int first_row, float* scratch)
      : a_(a), state_(state), tile_(tile), kv_head_(kv_head), first_row_(first_row) {
    const size_t place = reinterpret_cast<uintptr_t>(scratch) / sizeof(float) % LANES;
    scores_ = scratch + (place ? LANES - place : 0);
    int from = tile.to_block * PAGE, to = 0;
    for (int r = 0; r < ROWS; ++r) {
      spans_[r] = visible(a, tile, query(r));
      from = std::min(from, spans_[r].from);
      to = std::max(to, spans_[r].to);
    }
    from_block_ = from / PAGE;
    to_block_ = (to + PAGE - 1) / PAGE;
    queries_ = scores_ + static_cast<size_t>(to_block_ - from_block_) * ROWS * LANES;
  }

  void attend(const float* q, float* out, size_t stride) {
    for (int r = 0; r < ROWS; ++r) {
      const float* from = q + place(r, stride);
      for (int d = 0; d < a_.dim; ++d) queries_[d * ROWS + r] = from[d] * a_.scale;
    }
    score();
    prefetch_values();
    for (int r = 0; r < ROWS; ++r) sums_[r] = weigh(r);
    mix(out, stride);
  }

 private:
  int group() const { return a_.heads / a_.kv_heads; }
  int query(int r) const { return (first_row_ + r) / group(); }
  size_t place(int r, size_t stride) const {
    const int head = kv_head_ * group() + (first_row_ + r) % group();
    return (tile_.token + query(r)) * stride + static_cast<size_t>(head) * a_.dim;
  }
  size_t page(int block) const { return static_cast<size_t>(tile_.pages[block]) * a_.kv_heads + kv_head_; }
  const T* keys(int block) const { return head_block<T>(state_.keys, page(block), a_.dim); }
  const T* values(int block) const { return head_block<T>(state_.values, page(block), a_.value_dim()); }
  float* scores(int block, int r) { return scores_ + (static_cast<size_t>(block - from_block_) * ROWS + r) * LANES; }

  // Scores of all blocks that a row sees.
  void score() { score_from<side_by_side(ROWS)>(from_block_); }

  template <int BLOCKS>
  void score_from(int block) {
    for (; block + BLOCKS <= to_block_; block += BLOCKS) score_blocks<BLOCKS>(block);
    if constexpr (BLOCKS > 1) score_from<BLOCKS / 2>(block);
  }

  // The loops over rows and columns are unrolled so that their sums stay in registers.
  template <int BLOCKS>
  void score_blocks(int block) {
    const T *k[BLOCKS], *ahead[BLOCKS];
    F32 sum[BLOCKS][ROWS];
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b) {
      k[b] = keys(block + b);
      ahead[b] = keys(std::min(block + b + BLOCKS, to_block_ - 1));
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) sum[b][r] = broadcast(0);
    }
    const float* q = queries_;
    for (int d = 0; d < a_.dim; ++d, q += ROWS) {
      F32 key[BLOCKS];
#pragma GCC unroll 8
      for (int b = 0; b < BLOCKS; ++b) {
        key[b] = load_state_values(k[b] + d * PAGE);
        prefetch(ahead[b] + d * PAGE);
      }
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) {
        const F32 value = broadcast(q[r]);
#pragma GCC unroll 8
        for (int b = 0; b < BLOCKS; ++b) sum[b][r] = fma(value, key[b], sum[b][r]);
      }
    }
#pragma GCC unroll 8
    for (int b = 0; b < BLOCKS; ++b)
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) store(scores(block + b, r), scaled(sum[b][r], k[b], a_.dim));
  }

  // The first values that mix() reads: they come while weigh() computes.
  void prefetch_values() {
    for (int block = from_block_; block < std::min(from_block_ + AHEAD, to_block_); ++block)
      for (int i = 0; i < PAGE * a_.value_dim(); i += LANES) prefetch(values(block) + i);
  }

  // Scores of a row to weights of its values that are not yet divided by their sum; returns the sum.
  float weigh(int r) {
    const Span span = spans_[r];
    const F32 hidden = broadcast(-std::numeric_limits<float>::infinity());
    F32 most = hidden;
    for (int block = from_block_; block < to_block_; ++block) {
      F32 score = load(scores(block, r));
      if (a_.softcap != 0) score = cap(score, a_.softcap);
      const int from = span.first_lane(block), to = span.last_lane(block);
      if (from > 0 || to < PAGE) score = keep_lanes(score, from, to, hidden);
      store(scores(block, r), score);
      most = max(most, score);
    }
    const F32 top = broadcast(max_lanes(most));
    F32 sum = broadcast(0);
    for (int block = from_block_; block < to_block_; ++block) {
      const F32 weight = exp(load(scores(block, r)) - top);
      store(scores(block, r), scaled(weight, values(block), a_.value_dim()));
      sum = sum + weight;
    }
    return sum_lanes(sum);
  }

  // The positions that all rows see are walked by all rows at once, the rest by each row alone.
  void mix(float* out, size_t stride) {
    for (int r = 0; r < ROWS; ++r) {
      common_.from = std::max(common_.from, spans_[r].from);
      common_.to = std::min(common_.to, spans_[r].to);
    }
    common_.to = std::max(common_.from, common_.to);
    mix_from<side_by_side(ROWS)>(0, out, stride);
  }

  template <int VECTORS>
  void mix_from(int vector, float* out, size_t stride) {
    for (; (vector + VECTORS) * LANES <= a_.value_dim(); vector += VECTORS) mix_vectors<VECTORS>(vector, out, stride);
    if constexpr (VECTORS > 1) mix_from<VECTORS / 2>(vector, out, stride);
  }

  template <int VECTORS>
  void mix_vectors(int vector, float* out, size_t stride) {
    alignas(64) float sums[ROWS][VECTORS * LANES] = {};
    for (int r = 0; r < ROWS; ++r)
      mix_positions<1, VECTORS>(r, {spans_[r].from, std::min(common_.from, spans_[r].to)}, vector, sums + r);
    mix_positions<ROWS, VECTORS>(0, common_, vector, sums);
    for (int r = 0; r < ROWS; ++r) {
      mix_positions<1, VECTORS>(r, {std::max(common_.to, spans_[r].from), spans_[r].to}, vector, sums + r);
      for (int d = 0; d < VECTORS * LANES; d += LANES) {
        const int at = vector * LANES + d;
        store_some(out + place(r, stride) + at, load(sums[r] + d) / broadcast(sums_[r]), a_.dim - at);
      }
    }
  }

  // Adds to the sums of rows [first, first + COUNT) what they see in `span`.
  template <int COUNT, int VECTORS>
  void mix_positions(int first, Span span, int vector, float (*sums)[VECTORS * LANES]) {
    if (span.from >= span.to) return;
    F32 sum[COUNT][VECTORS];
#pragma GCC unroll 8
    for (int r = 0; r < COUNT; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < VECTORS; ++n) sum[r][n] = load(sums[r] + n * LANES);
    const int last = (span.to - 1) / PAGE, step = a_.value_dim();
    for (int block = span.from / PAGE; block <= last; ++block) {
      const int from = span.first_lane(block), to = span.last_lane(block);
      const T* v = values(block) + from * step + vector * LANES;
      const T* ahead = values(std::min(block + AHEAD, last)) + from * step + vector * LANES;
      const float* weights = scores(block, first) + from;
      for (int i = from; i < to; ++i, ++weights, v += step, ahead += step) {
        F32 value[VECTORS];
#pragma GCC unroll 8
        for (int n = 0; n < VECTORS; ++n) {
          value[n] = load_state_values(v + n * LANES);
          prefetch(ahead + n * LANES);
        }
#pragma GCC unroll 8
        for (int r = 0; r < COUNT; ++r) {
          const F32 weight = broadcast(weights[r * LANES]);
#pragma GCC unroll 8
          for (int n = 0; n < VECTORS; ++n) sum[r][n] = fma(weight, value[n], sum[r][n]);
        }
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < COUNT; ++r)
#pragma GCC unroll 8
      for (int n = 0; n < VECTORS; ++n) store(sums[r] + n * LANES, sum[r][n]);
  }

  const Attention& a_;
  const LayerState& state_;
  const Tile& tile_;
  int kv_head_, first_row_, from_block_, to_block_;
  Span spans_[ROWS];
  Span common_{0, std::numeric_limits<int>::max()};
  float sums_[ROWS];
  float* scores_;   // [blocks, ROWS, 16 positions]
  float* queries_;  // [dim, ROWS], scaled
};

template <class T, int ROWS = GROUP_ROWS>
inline void attend_rows(const Attention& a, const LayerState& state, const Tile& tile, int kv_head, const float* q,
                        float* out, size_t stride, float* scratch, int row) {
  const int rows = tile.queries * (a.heads / a.kv_heads);
  for (; row + ROWS <= rows; row += ROWS)
    RowGroup<T, ROWS>(a, state, tile, kv_head, row, scratch).attend(q, out, stride);
  if constexpr (ROWS > 1)
    if (row < rows) attend_rows<T, ROWS - 1>(a, state, tile, kv_head, q, out, stride, scratch, row);
}

inline void attend(const Attention& a, const LayerState& state, const Tile& tile, int kv_head, const float* q,
                   float* out, size_t stride, float* scratch) {
  switch (state.type) {
    case StateType::fp16: return attend_rows<uint16_t>(a, state, tile, kv_head, q, out, stride, scratch, 0);
    case StateType::fp32: return attend_rows<float>(a, state, tile, kv_head, q, out, stride, scratch, 0);
    case StateType::int8: return attend_rows<int8_t>(a, state, tile, kv_head, q, out, stride, scratch, 0);
  }
}

}  // namespace HEADRACE_ISA

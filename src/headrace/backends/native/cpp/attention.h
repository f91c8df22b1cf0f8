// Attention over pages of 16 positions, for the queries of one tile and one KV head.
//
// A score is one chain over the values of a head, a sum of weights one chain of blocks for each of 16 lanes,
// from the query's first visible block on, and an output value one chain over the positions that the query sees.
// What a query does not see is never multiplied: it may be anything.
#pragma once

#include <algorithm>

#include "functions.h"
#include "kernels.h"
#include "rows.h"

namespace HEADRACE_ISA {

using headrace::Attention;
using headrace::LayerState;
using headrace::PAGE;
using headrace::Tile;

static_assert(PAGE == LANES);

// ---- pages ----

inline F32 load_state_values(const float* from) { return load(from); }
inline F32 load_state_values(const uint16_t* from) { return load_f16(from); }
inline void store_state_values(float* to, F32 x) { store(to, x); }
inline void store_state_values(uint16_t* to, F32 x) {
  constexpr float most = 65504;  // the largest finite half
  store_f16(to, min(broadcast(most), max(broadcast(-most), x)));
}

template <class T>
inline void store_pages(const Attention& a, const LayerState& state, int page, int offset, const float* k,
                        const float* v) {
  const int padded = a.value_dim();
  for (int head = 0; head < a.kv_heads; ++head, k += a.dim, v += a.dim) {
    const size_t at = static_cast<size_t>(page) * a.kv_heads + head;
    T* keys = static_cast<T*>(state.keys) + at * a.dim * PAGE + offset;
    T* values = static_cast<T*>(state.values) + (at * PAGE + offset) * padded;
    for (int d = 0; d < a.dim; d += LANES) {
      const int there = std::min(a.dim - d, LANES);
      T column[LANES];
      store_state_values(column, load_some(k + d, there));
      for (int i = 0; i < there; ++i) keys[(d + i) * PAGE] = column[i];
      store_state_values(values + d, load_some(v + d, there));
    }
  }
}

inline void store_state(const Attention& a, const LayerState& state, int page, int offset, const float* k,
                        const float* v) {
  if (state.wide) store_pages<float>(a, state, page, offset, k, v);
  else store_pages<uint16_t>(a, state, page, offset, k, v);
}

// ---- rows: one query of one head each ----

// Rows that share the loads of keys and values, and what of their sums the registers hold.
constexpr int MOST_ROWS = 8;
constexpr int GROUP_ROWS = REGISTERS >= 32 ? MOST_ROWS : 6;

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
  const T* keys(int block) const { return static_cast<const T*>(state_.keys) + page(block) * a_.dim * PAGE; }
  const T* values(int block) const { return static_cast<const T*>(state_.values) + page(block) * PAGE * a_.value_dim(); }
  float* scores(int block, int r) { return scores_ + (static_cast<size_t>(block - from_block_) * ROWS + r) * LANES; }

  // Scores of all blocks that a row sees.
  void score() {
    constexpr int most = side_by_side(ROWS);
    int block = from_block_;
    for (; block + most <= to_block_; block += most) score_blocks<most>(block);
    for (; block < to_block_; ++block) score_blocks<1>(block);
  }

  template <int BLOCKS>
  void score_blocks(int block) {
    const T* k[BLOCKS];
    F32 sum[BLOCKS][ROWS];
    for (int b = 0; b < BLOCKS; ++b) {
      k[b] = keys(block + b);
      for (int r = 0; r < ROWS; ++r) sum[b][r] = broadcast(0);
    }
    const float* q = queries_;
    for (int d = 0; d < a_.dim; ++d, q += ROWS) {
      F32 key[BLOCKS];
      for (int b = 0; b < BLOCKS; ++b) key[b] = load_state_values(k[b] + d * PAGE);
      for (int r = 0; r < ROWS; ++r) {
        const F32 value = broadcast(q[r]);
        for (int b = 0; b < BLOCKS; ++b) sum[b][r] = fma(value, key[b], sum[b][r]);
      }
    }
    for (int b = 0; b < BLOCKS; ++b)
      for (int r = 0; r < ROWS; ++r) store(scores(block + b, r), sum[b][r]);
  }

  // Scores of a row to weights that are not yet divided by their sum; returns the sum.
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
      store(scores(block, r), weight);
      sum = sum + weight;
    }
    return sum_lanes(sum);
  }

  void mix(float* out, size_t stride) {
    constexpr int most = side_by_side(ROWS);
    const int vectors = a_.value_dim() / LANES;
    int vector = 0;
    for (; vector + most <= vectors; vector += most) mix_vectors<most>(vector, out, stride);
    for (; vector < vectors; ++vector) mix_vectors<1>(vector, out, stride);
  }

  template <int VECTORS>
  void mix_vectors(int vector, float* out, size_t stride) {
    F32 sum[ROWS][VECTORS];
    for (auto& row : sum)
      for (auto& value : row) value = broadcast(0);
    int from = 0, to = to_block_ * PAGE;
    for (const Span& span : spans_) {
      from = std::max(from, span.from);
      to = std::min(to, span.to);
    }
    for (int block = from_block_; block < to_block_; ++block) {
      if (from <= block * PAGE && (block + 1) * PAGE <= to) mix_block<VECTORS, true>(block, vector, sum);
      else mix_block<VECTORS, false>(block, vector, sum);
    }
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < VECTORS; ++v) {
        const int d = (vector + v) * LANES;
        store_some(out + place(r, stride) + d, sum[r][v] / broadcast(sums_[r]), a_.dim - d);
      }
  }

  // `ALL`: every row sees the whole block.
  template <int VECTORS, bool ALL>
  void mix_block(int block, int vector, F32 (&sum)[ROWS][VECTORS]) {
    const T* v = values(block) + vector * LANES;
    const float* weights = scores(block, 0);
    for (int i = 0; i < PAGE; ++i, v += a_.value_dim()) {
      F32 value[VECTORS];
      for (int n = 0; n < VECTORS; ++n) value[n] = load_state_values(v + n * LANES);
      for (int r = 0; r < ROWS; ++r) {
        const int position = block * PAGE + i;
        if (!ALL && (position < spans_[r].from || spans_[r].to <= position)) continue;
        const F32 weight = broadcast(weights[r * LANES + i]);
        for (int n = 0; n < VECTORS; ++n) sum[r][n] = fma(weight, value[n], sum[r][n]);
      }
    }
  }

  const Attention& a_;
  const LayerState& state_;
  const Tile& tile_;
  int kv_head_, first_row_, from_block_, to_block_;
  Span spans_[ROWS];
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
  if (state.wide) attend_rows<float>(a, state, tile, kv_head, q, out, stride, scratch, 0);
  else attend_rows<uint16_t>(a, state, tile, kv_head, q, out, stride, scratch, 0);
}

}  // namespace HEADRACE_ISA

// A compiled model: its weights, buffers and operations, and the step that it works on.
#pragma once

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace headrace {

// Buffers are numbered; each holds one row of `width` floats a token.
struct Embed {
  int out, table;
  float scale;
  const float* positions;  // [positions, width], or null
  const float* types;      // [width], or null
};

struct Normalise {
  int x, out;
  Norm norm;
};

struct Product {
  int weight;
  const float* bias;  // null: none
  int out;
};

// Products of one input, which is normalised first where `norm.gain` is set.
//
// `none`: each product stands in its own buffer. `activate`: out = activation(first) (* second).
// `add`: out += product. `coded`: the operation before has left the codes of x, as Attend and `activate` do for
// the next operation where `out_planes` is not 0.
struct Linear {
  enum class Join : int { none, activate, add };
  int x, planes;
  Norm norm;
  std::vector<Product> products;
  Join join;
  Activation activation;
  int out;
  bool coded;
  int out_planes;
};

struct Rope {
  int half;
  const float* cos;  // [positions, half]
  const float* sin;
};

// Norms and rotation of q and k, then their place in the pages, then attention.
struct Attend {
  int q, k, v, out, layer, group;
  Attention attention;
  Norm q_norm, k_norm;  // no gain: none
  Rope rope;            // half 0: none
  int out_planes;
};

struct Add {
  int x, y, out;
};

// out: for each row the numbers of the top-k experts, then their weights; ties go to the lower number.
struct Route {
  int x, out, weight, experts, top_k;
  bool renormalise;
};

// out = sum over the routed experts, in rank order, of weight * down(activation(gate(x)) * up(x)).
struct Experts {
  int x, planes, routes, out, top_k, width;
  std::vector<int> gate, up, down;  // up is empty where the block is not gated
  Activation activation;
};

struct Keep {
  int x;
};

struct Head {
  int x, planes, weight;
  const float* bias;
  float scale, softcap;
};

using Operation = std::variant<Embed, Normalise, Linear, Attend, Add, Route, Experts, Keep, Head>;

// What an adapter adds to the product of one weight: strength * scale * b (a x).
struct LowRank {
  Matrix a, b;  // [rank, inputs], [outputs, rank]
  float scale;
  std::vector<float> a_panels, b_panels;
};

struct Adapter {
  std::vector<LowRank> targets;
  std::vector<int> of_weight;  // place of each weight's target, or -1
};

// A LowRank as it is given, row by row.
struct Target {
  int weight, rank;
  float scale;
  const float *a, *b;
};

// Neighbouring rows of the buffers that have one adapter at one strength.
struct Adapted {
  int adapter, token, count;
  float strength;
};

// One row of a batch: `count` tokens from `token` on in the flat buffers, from `position` on in its sequence.
struct Row {
  int token, count, position;
};

struct Step {
  std::vector<int32_t> tokens, positions, kept;
  std::vector<Row> rows;
  std::vector<int> row_of;                                // row of each token
  std::vector<std::vector<std::vector<int32_t>>> pages;   // page table of each state group and row
  std::vector<std::pair<int, int>> tiles;                 // row and first token in it; most work first
  std::vector<Adapted> adapted;                           // empty: no row has an adapter
  int count = 0;                                          // rows of the buffers that the next operation works on

  // `adapters`: number (-1: none) and strength of each row's, or nothing at all.
  void adapt(const std::vector<std::pair<int, float>>& adapters);
  const int32_t* table(int group, int row) const { return pages[group][row].data(); }
};

// Room for the rows that enter a product, and for one tile of attention.
struct Scratch {
  std::vector<float> values, scales, totals, attention;
  std::vector<int8_t> codes[2];
  std::vector<int32_t> sums;

  // `floats`: room for the values themselves, not for their codes alone. Returns its bytes; allocates nothing
  // where `measure`.
  size_t size(size_t rows, size_t inputs, bool floats, size_t attend_values, bool measure);
};

class Model {
 public:
  // `widths`: floats a row of each buffer. `tokens`, `logits`, `blocks`: most of them in a step, a step, a sequence.
  Model(const Kernels& kernels, int threads, int tokens, int logits, int blocks, std::vector<int> widths);

  // Adds a matrix without its data, which fill_weight() gives before the first step; that returns the bytes it reads.
  int add_weight(const Matrix& weight);
  size_t fill_weight(int number, const uint8_t* data);
  void add_state(const LayerState& state) { states_.push_back(state); }
  void add(Operation operation) { operations_.push_back(std::move(operation)); }
  // Bytes of buffers and scratch; known when every weight and operation was added, before anything is allocated.
  size_t workspace_bytes() { return workspace(true); }
  // Allocates the workspace; `logits` [most logit rows, vocab] receives results.
  void prepare(float* logits);

  // Copies an adapter, and returns its number. Between steps, after prepare().
  int add_adapter(const std::vector<Target>& targets);
  void remove_adapter(int number);
  // Bytes by which an adapter of this rank makes the workspace grow, beside its own panels.
  size_t low_bytes(int rank) const { return sizeof(float) * (low_floats(std::max(rank, low_rank_)) - low_.size()); }

  // `rows`: tokens and first position of each. `kept`: the tokens whose logits are wanted, ascending.
  void begin(std::vector<int32_t> tokens, const std::vector<std::pair<int, int>>& rows, std::vector<int32_t> kept,
             std::vector<std::vector<std::vector<int32_t>>> pages, const std::vector<std::pair<int, float>>& adapters);
  // Runs operations [start, stop) on the step that begin() gave.
  void run(int start, int stop);

  float* buffer(int number) { return buffers_[number].data(); }
  int width(int number) const { return widths_[number]; }
  const Matrix& weight(int number) const { return weights_.at(number); }
  const Kernels& kernels() const { return kernels_; }
  int threads() const { return pool_.members(); }
  // Nanoseconds that each operation has taken since the last call, as the first thread saw it; at the end those
  // that went into waking the threads and waiting for the last of them.
  std::vector<int64_t> take_nanoseconds();

 private:
  friend class Runner;
  size_t workspace(bool measure);
  size_t low_floats(int rank) const;
  const LowRank* target(int adapter, int weight) const;

  const Kernels& kernels_;
  Pool pool_;
  int tokens_, logit_rows_, blocks_;
  std::vector<int> widths_;
  std::vector<Matrix> weights_;
  std::vector<LayerState> states_;
  std::vector<Operation> operations_;
  std::vector<int64_t> nanoseconds_;
  uint32_t phase_ = 1;  // of the next operation
  Step step_;

  std::vector<std::vector<float>> buffers_;
  float* logits_ = nullptr;
  Scratch shared_;             // rows of the product at hand
  Scratch coded_;              // codes that an operation leaves for the next one
  std::vector<Scratch> own_;   // each member's, for the few rows of a decode
  std::vector<Adapter> adapters_;
  int low_rank_ = 0;           // the largest of all adapters
  std::vector<float> low_;     // [product, token, rank]
  std::vector<float> expert_middle_, expert_up_, expert_down_, expert_out_;
};

}  // namespace headrace

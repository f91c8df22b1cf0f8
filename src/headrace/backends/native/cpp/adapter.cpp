// Low-rank adapters (LoRA, arXiv 2106.09685): what they add to the products of the rows that have one.
//
// Both matrices are float weights like any other, so that a row's bits depend on that row alone here too.
#include <algorithm>
#include <stdexcept>

#include "runner.h"

namespace headrace {

namespace {

constexpr int MOST_ROWS = 16;  // of a piece, so that threads share a long prompt; without effect on any bit

// [outputs, inputs] in panels of 16 outputs; the last one is filled up with zeros.
Matrix pack(const float* values, int outputs, int inputs, std::vector<float>& panels) {
  Matrix packed{Format::f32, outputs, inputs, 1, 0, false, false, nullptr, sizeof(float) * PANEL * inputs};
  panels.assign(size_t(packed.panels()) * PANEL * inputs, 0.0f);
  for (int output = 0; output < outputs; ++output)
    for (int input = 0; input < inputs; ++input)
      panels[(size_t(output / PANEL) * inputs + input) * PANEL + output % PANEL] = values[size_t(output) * inputs + input];
  packed.data = reinterpret_cast<const uint8_t*>(panels.data());
  return packed;
}

}  // namespace

// ---- the model's adapters ----

int Model::add_adapter(const std::vector<Target>& targets) {
  Adapter adapter;
  adapter.of_weight.assign(weights_.size(), -1);
  int rank = low_rank_;
  for (const Target& target : targets) {
    const Matrix& weight = weights_.at(target.weight);
    adapter.of_weight[target.weight] = static_cast<int>(adapter.targets.size());
    LowRank& packed = adapter.targets.emplace_back();
    packed.scale = target.scale;
    packed.a = pack(target.a, target.rank, weight.inputs, packed.a_panels);
    packed.b = pack(target.b, weight.outputs, target.rank, packed.b_panels);
    rank = std::max(rank, target.rank);
  }
  low_.assign(low_floats(rank), 0.0f);
  low_rank_ = rank;
  adapters_.push_back(std::move(adapter));
  return static_cast<int>(adapters_.size()) - 1;
}

void Model::remove_adapter(int number) { adapters_.at(number) = Adapter{}; }

size_t Model::low_floats(int rank) const {
  size_t products = 0;
  for (const Operation& operation : operations_)
    if (const auto* op = std::get_if<Linear>(&operation)) products = std::max(products, op->products.size());
  return products * tokens_ * rank;
}

const LowRank* Model::target(int adapter, int weight) const {
  const Adapter& found = adapters_[adapter];
  const int place = found.of_weight[weight];
  return place < 0 ? nullptr : &found.targets[place];
}

void Step::adapt(const std::vector<std::pair<int, float>>& adapters) {
  for (size_t r = 0; r < adapters.size(); ++r) {
    const auto [adapter, strength] = adapters[r];
    if (adapter < 0 || strength == 0) continue;
    for (int token = rows[r].token; token < rows[r].token + rows[r].count; ++token) {
      const bool goes_on = !adapted.empty() && adapted.back().adapter == adapter && adapted.back().strength == strength &&
                           adapted.back().token + adapted.back().count == token && adapted.back().count < MOST_ROWS;
      if (!goes_on) adapted.push_back({adapter, token, 0, strength});
      ++adapted.back().count;
    }
  }
}

// ---- one member's share ----

float* Runner::low(int product, int token) {
  return m_.low_.data() + (size_t(product) * m_.tokens_ + token) * m_.low_rank_;
}

bool Runner::lower(const Linear& op, const Rows& x) {
  const std::vector<Adapted>& pieces = m_.step_.adapted;
  const int products = static_cast<int>(op.products.size());
  const auto changes = [&](const Adapted& rows) {
    return std::any_of(op.products.begin(), op.products.end(),
                       [&](const Product& product) { return m_.target(rows.adapter, product.weight); });
  };
  if (std::none_of(pieces.begin(), pieces.end(), changes)) return false;
  share(static_cast<int>(pieces.size()) * products, 1, [&](int first, int last) {
    for (int job = first; job < last; ++job) {
      const Adapted& rows = pieces[job / products];
      const LowRank* target = m_.target(rows.adapter, op.products[job % products].weight);
      if (!target) continue;
      Rows some = x;
      some.values += size_t(rows.token) * x.stride;
      some.inputs = target->a.inputs;
      float* out = low(job % products, rows.token);
      k_.multiply(target->a, some, rows.count, 0, target->a.panels(), out, m_.low_rank_, false);
      const float factor = rows.strength * target->scale;
      for (int i = 0; i < rows.count; ++i)
        for (int j = 0; j < target->a.outputs; ++j) out[size_t(i) * m_.low_rank_ + j] *= factor;
    }
  });
  return true;
}

void Runner::raise(const Linear& op, int product, int from, int to, int buffer) {
  for (const Adapted& rows : m_.step_.adapted) {
    const LowRank* target = m_.target(rows.adapter, op.products[product].weight);
    if (!target) continue;
    Rows some{};
    some.values = low(product, rows.token);
    some.stride = m_.low_rank_;
    some.inputs = target->b.inputs;
    k_.multiply(target->b, some, rows.count, from, to, row(buffer, rows.token), m_.widths_[buffer], true);
  }
}

}  // namespace headrace

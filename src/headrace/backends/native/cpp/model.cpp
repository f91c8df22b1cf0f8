#include "model.h"

#include <algorithm>
#include <chrono>

#include "runner.h"

namespace headrace {

namespace {

constexpr size_t OVERRUN = 64;  // values that a vector may read beyond the last one

template <class T>
size_t grow(std::vector<T>& values, size_t count, bool measure) {
  count = count ? count + OVERRUN : 0;
  if (!measure) values.assign(count, T{});
  return count * sizeof(T);
}

}  // namespace

size_t Scratch::size(size_t rows, size_t inputs, bool floats, size_t attend_values, bool measure) {
  const size_t values_ = rows * ((inputs + SCALE_INPUTS - 1) / SCALE_INPUTS * SCALE_INPUTS);
  return grow(values, floats ? values_ : 0, measure) + grow(scales, values_ / SCALE_INPUTS, measure) +
         grow(totals, values_ / SCALE_INPUTS, measure) + grow(codes[0], values_, measure) +
         grow(codes[1], values_, measure) + grow(sums, values_ / SUM_INPUTS, measure) +
         grow(attention, attend_values, measure);
}

Model::Model(const Kernels& kernels, int threads, int tokens, int logits, int blocks, std::vector<int> widths)
    : kernels_(kernels),
      pool_(threads),
      tokens_(tokens),
      logit_rows_(logits),
      blocks_(blocks),
      widths_(std::move(widths)),
      buffers_(widths_.size()),
      own_(threads) {}

int Model::add_weight(const Matrix& weight) {
  weights_.push_back(weight);
  return static_cast<int>(weights_.size()) - 1;
}

size_t Model::fill_weight(int number, const uint8_t* data) {
  Matrix& weight = weights_.at(number);
  weight.data = data;
  return weight.panels() * weight.panel_bytes;
}

size_t Model::workspace(bool measure) {
  size_t inputs = 1, attend = 0, routed = 0, middle = 0, hidden = 0, coded = 0;
  for (const Matrix& weight : weights_) inputs = std::max<size_t>(inputs, weight.inputs);
  for (const Operation& operation : operations_) {
    if (const auto* op = std::get_if<Attend>(&operation)) attend = std::max(attend, attend_floats(op->attention, blocks_));
    if (const auto* op = std::get_if<Linear>(&operation); op && op->coded) coded = std::max<size_t>(coded, widths_[op->x]);
    if (const auto* op = std::get_if<Experts>(&operation)) {
      routed = std::max<size_t>(routed, tokens_ * op->top_k);
      middle = std::max<size_t>(middle, op->width);
      hidden = std::max<size_t>(hidden, widths_[op->out]);
    }
  }
  const size_t rows = std::max<size_t>(std::max(tokens_, logit_rows_), routed);
  size_t bytes = shared_.size(rows, inputs, true, 0, measure) + coded_.size(tokens_, coded, false, 0, measure);
  for (Scratch& own : own_) bytes += own.size(FEW_ROWS, inputs, true, attend, measure);
  for (size_t i = 0; i < widths_.size(); ++i) bytes += grow(buffers_[i], size_t(tokens_) * widths_[i], measure);
  return bytes + grow(expert_middle_, routed * middle, measure) + grow(expert_up_, routed * middle, measure) +
         grow(expert_down_, routed * hidden, measure) + grow(expert_out_, routed * hidden, measure);
}

void Model::prepare(float* logits) {
  logits_ = logits;
  nanoseconds_.assign(operations_.size() + 1, 0);
  workspace(false);
}

void Model::begin(std::vector<int32_t> tokens, const std::vector<std::pair<int, int>>& rows, std::vector<int32_t> kept,
                  std::vector<std::vector<std::vector<int32_t>>> pages,
                  const std::vector<std::pair<int, float>>& adapters) {
  Step step;
  step.count = static_cast<int>(tokens.size());
  for (const auto& [count, position] : rows) {
    const int row = static_cast<int>(step.rows.size());
    step.rows.push_back({static_cast<int>(step.positions.size()), count, position});
    for (int i = 0; i < count; ++i) step.positions.push_back(position + i);
    step.row_of.insert(step.row_of.end(), count, row);
    for (int first = 0; first < count; first += TILE_QUERIES) step.tiles.emplace_back(row, first);
  }
  // Work grows with the position: the longest first, so that members end together.
  std::stable_sort(step.tiles.begin(), step.tiles.end(), [&](const auto& a, const auto& b) {
    return step.rows[a.first].position + a.second > step.rows[b.first].position + b.second;
  });
  step.adapt(adapters);
  step.tokens = std::move(tokens);
  step.kept = std::move(kept);
  step.pages = std::move(pages);
  step_ = std::move(step);
}

void Model::run(int start, int stop) {
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point began) { return std::chrono::nanoseconds(Clock::now() - began).count(); };
  const auto called = Clock::now();
  int64_t inside = 0;
  const uint32_t phase = phase_;
  phase_ += (stop - start) * PHASES;
  pool_.run([&](int member, Team& team) {
    Runner runner(*this, member, team);
    for (int i = start; i < stop; ++i) {
      const auto began = Clock::now();
      runner.run(operations_[i], phase + (i - start) * PHASES);
      if (member != 0) continue;
      const int64_t taken = since(began);
      nanoseconds_[i] += taken;
      inside += taken;
    }
  });
  nanoseconds_.back() += since(called) - inside;
}

std::vector<int64_t> Model::take_nanoseconds() {
  std::vector<int64_t> taken(nanoseconds_.size());
  std::swap(taken, nanoseconds_);
  return taken;
}

}  // namespace headrace

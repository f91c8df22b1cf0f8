// One member's share of each operation. Every member runs the same operations and names the same phases.
#pragma once

#include <algorithm>

#include "model.h"

namespace headrace {

// So few rows are prepared by every member for itself: that is quicker than sharing them.
constexpr int FEW_ROWS = 4;

// Numbers that an operation may take: six for each expert, and a few more.
constexpr uint32_t PHASES = 1 << 14;

class Runner {
 public:
  Runner(Model& model, int member, Team& team) : m_(model), k_(model.kernels_), member_(member), team_(team) {}

  // Runs an operation whose phases are numbered from `phase` on, unless the others have finished it.
  void run(const Operation& operation, uint32_t phase) {
    if (team_.reached(phase + PHASES)) return;
    phase_ = phase;
    std::visit(*this, operation);
  }

  void operator()(const Embed& op);
  void operator()(const Normalise& op);
  void operator()(const Linear& op);
  void operator()(const Attend& op);
  void operator()(const Add& op);
  void operator()(const Route& op);
  void operator()(const Experts& op);
  void operator()(const Keep& op);
  void operator()(const Head& op);

 private:
  // The next phase: pieces of [0, count), shared with the other members.
  template <class Work>
  void share(int count, int size, Work&& work) {
    team_.share(phase_++, count, size, std::forward<Work>(work));
  }

  // Panels of a matrix in pieces. Claims mostly alternate among the members, so each of them walks through panels
  // that lie together, and what a kernel prefetches behind a piece is its own next one.
  template <class Work>
  void share_panels(int panels, Work&& work) {
    const int members = team_.members(), each = count() <= FEW_ROWS ? 2 : 4;
    const int size = std::clamp(panels / (members * each) / 4 * 4, 4, 64);
    const int pieces = (panels + size - 1) / size, run = (pieces + members - 1) / members;
    share(run * members, 1, [&](int claim, int) {
      const int from = (claim % members * run + claim / members) * size;
      if (from < panels) work(from, std::min(from + size, panels));
    });
  }

  float* row(int buffer, int index) { return m_.buffers_[buffer].data() + size_t(index) * m_.widths_[buffer]; }
  int count() const { return m_.step_.count; }

  Rows rows_of(Scratch& scratch, int inputs, int planes) const;
  void prepare_row(const Rows& rows, int index, const float* from, const Norm& norm, bool quantise, Scratch& scratch);
  // A buffer whose codes the operation before leaves for a product.
  Rows coded(int buffer, int planes) const;
  // A buffer's rows for a product, normalised and quantised as asked; `overwritten`: by that very product.
  Rows prepare(int buffer, int inputs, const Norm& norm, int planes, bool quantise, bool overwritten);
  void finish_piece(const Linear& op, int product, int from, int to);
  void products(const Linear& op, const Rows& x);

  // strength * scale * a x of the rows whose adapter changes one of the products; whether there are any.
  bool lower(const Linear& op, const Rows& x);
  // Adds b times that to panels [from, to) of a product, which stand in `buffer`.
  void raise(const Linear& op, int product, int from, int to, int buffer);
  float* low(int product, int token);

  void store_states(const Attend& op);
  void attend_tiles(const Attend& op);

  void expert_rows(const Experts& op, int expert, const std::vector<int>& slots);
  void expert_product(int weight, const Rows& x, int rows, float* out, size_t stride);

  Model& m_;
  const Kernels& k_;
  const int member_;
  Team& team_;
  uint32_t phase_ = 0;
};

}  // namespace headrace

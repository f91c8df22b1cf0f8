#include "runner.h"

#include <cmath>
#include <cstring>

#include "decode.h"

namespace headrace {

// ---- rows that enter a product ----

Rows Runner::rows_of(Scratch& scratch, int inputs, int planes) const {
  Rows rows{};
  rows.values = scratch.values.data();
  rows.stride = inputs;
  rows.inputs = inputs;
  rows.planes = planes;
  rows.codes[0] = scratch.codes[0].data();
  rows.codes[1] = scratch.codes[1].data();
  rows.scales = scratch.scales.data();
  rows.sums = scratch.sums.data();
  rows.totals = scratch.totals.data();
  return rows;
}

void Runner::prepare_row(const Rows& rows, int index, const float* from, const Norm& norm, bool quantise, Scratch& s) {
  float* to = s.values.data() + size_t(index) * rows.inputs;
  if (norm.gain) k_.normalise(norm, from, to);
  else std::memcpy(to, from, rows.inputs * sizeof(float));
  if (quantise) k_.quantise(rows, index, 0, rows.inputs);
}

Rows Runner::coded(int buffer, int planes) const {
  Rows rows = rows_of(m_.coded_, m_.widths_[buffer], planes);
  rows.values = m_.buffers_[buffer].data();
  return rows;
}

Rows Runner::prepare(int buffer, int inputs, const Norm& norm, int planes, bool quantise, bool overwritten) {
  const bool few = count() <= FEW_ROWS && !overwritten;
  Scratch& scratch = few ? m_.own_[member_] : m_.shared_;
  Rows rows = rows_of(scratch, inputs, planes);
  const bool copied = norm.gain || overwritten;
  if (!copied) {
    rows.values = row(buffer, 0);
    rows.stride = m_.widths_[buffer];
  }
  const auto some = [&](int first, int last) {
    for (int i = first; i < last; ++i) {
      if (copied) prepare_row(rows, i, row(buffer, i), norm, quantise, scratch);
      else if (quantise) k_.quantise(rows, i, 0, inputs);
    }
  };
  if (few) some(0, count());
  else if (copied || quantise) share(count(), 4, some);
  return rows;
}

// ---- operations on each row alone ----

void Runner::operator()(const Embed& op) {
  const Step& step = m_.step_;
  const int width = m_.widths_[op.out];
  share(count(), 4, [&](int first, int last) {
    for (int i = first; i < last; ++i) {
      float* x = row(op.out, i);
      decode_row(m_.weights_[op.table], step.tokens[i], x);
      const float* position = op.positions ? op.positions + size_t(step.positions[i]) * width : nullptr;
      for (int j = 0; j < width; ++j) {
        x[j] *= op.scale;
        if (position) x[j] += position[j];
        if (op.types) x[j] += op.types[j];
      }
    }
  });
}

void Runner::operator()(const Normalise& op) {
  share(count(), 4, [&](int first, int last) {
    for (int i = first; i < last; ++i) k_.normalise(op.norm, row(op.x, i), row(op.out, i));
  });
}

void Runner::operator()(const Add& op) {
  const int width = m_.widths_[op.out];
  share(count(), 4, [&](int first, int last) {
    const float *x = row(op.x, first), *y = row(op.y, first);
    float* out = row(op.out, first);
    for (size_t i = 0; i < size_t(last - first) * width; ++i) out[i] = x[i] + y[i];
  });
}

// ---- products ----

void Runner::operator()(const Linear& op) {
  if (op.coded) return products(op, coded(op.x, op.planes));
  const Matrix& first = m_.weights_[op.products[0].weight];
  const bool quantise = std::any_of(op.products.begin(), op.products.end(),
                                    [&](const Product& p) { return m_.weights_[p.weight].quantised(); });
  const bool overwritten = op.out == op.x || std::any_of(op.products.begin(), op.products.end(),
                                                         [&](const Product& p) { return p.out == op.x; });
  const Rows x = prepare(op.x, first.inputs, op.norm, op.planes, quantise, overwritten);
  products(op, x);
}

// The panels of all products in a row; those of an activated pair lie side by side.
void Runner::products(const Linear& op, const Rows& x) {
  const bool joined = op.join == Linear::Join::activate;
  const bool adapted = !m_.step_.adapted.empty() && lower(op, x);
  int panels = 0;
  for (const Product& product : op.products) {
    panels += m_.weights_[product.weight].panels();
    if (joined) break;
  }
  share_panels(panels, [&](int from, int to) {
    int base = 0;
    for (size_t i = 0; i < op.products.size() && from < to; ++i) {
      const Matrix& w = m_.weights_[op.products[i].weight];
      const int last = std::min(to - base, w.panels());
      if (!joined && from - base >= w.panels()) {
        base += w.panels();
        continue;
      }
      const Product& product = op.products[i];
      const bool add = op.join == Linear::Join::add && !product.bias;
      const int buffer = add ? op.out : product.out;
      k_.multiply(w, x, count(), from - base, last, row(buffer, 0), m_.widths_[buffer], add);
      if (adapted) raise(op, static_cast<int>(i), from - base, last, buffer);
      if (!add && (!joined || i + 1 == op.products.size())) finish_piece(op, static_cast<int>(i), from - base, last);
      if (!joined) {
        from = base + last;
        base += w.panels();
      }
    }
  });
}

// Bias and join of the outputs of panels [from, to), which this member has just computed.
void Runner::finish_piece(const Linear& op, int number, int from, int to) {
  const Product& product = op.products[number];
  const int begin = from * PANEL, end = std::min(to * PANEL, m_.weights_[product.weight].outputs);
  const auto bias = [&](const Product& p, int i) {
    if (!p.bias) return;
    float* y = row(p.out, i);
    for (int j = begin; j < end; ++j) y[j] += p.bias[j];
  };
  for (int i = 0; i < count(); ++i) {
    bias(product, i);
    if (op.join == Linear::Join::activate) {
      const bool gated = op.products.size() == 2;
      if (gated) bias(op.products[0], i);
      const float* up = gated ? row(product.out, i) + begin : nullptr;
      k_.activate(op.activation, row(op.products[0].out, i) + begin, up, row(op.out, i) + begin, end - begin);
      if (op.out_planes) k_.quantise(coded(op.out, op.out_planes), i, begin, end);
    } else if (op.join == Linear::Join::add) {
      float *x = row(op.out, i), *y = row(product.out, i);
      for (int j = begin; j < end; ++j) x[j] += y[j];
    }
  }
}

// ---- attention ----

void Runner::operator()(const Attend& op) {
  store_states(op);
  attend_tiles(op);
}

void Runner::store_states(const Attend& op) {
  const Step& step = m_.step_;
  const Attention& a = op.attention;
  const auto place = [&](int buffer, int token, int heads, const Norm& norm) {
    float* x = row(buffer, token);
    if (norm.gain) k_.normalise(norm, x, x);
    if (op.rope.half) {
      const size_t at = size_t(step.positions[token]) * op.rope.half;
      k_.rotate(x, heads, a.dim, op.rope.half, op.rope.cos + at, op.rope.sin + at);
    }
  };
  share(count(), 8, [&](int first, int last) {
    for (int token = first; token < last; ++token) {
      const int position = step.positions[token];
      place(op.q, token, a.heads, op.q_norm);
      place(op.k, token, a.kv_heads, op.k_norm);
      const int page = step.table(op.group, step.row_of[token])[position / PAGE];
      k_.store_state(a, m_.states_[op.layer], page, position % PAGE, row(op.k, token), row(op.v, token));
    }
  });
}

void Runner::attend_tiles(const Attend& op) {
  const Step& step = m_.step_;
  const Attention& a = op.attention;
  share(static_cast<int>(step.tiles.size()) * a.kv_heads, 1, [&](int first, int last) {
    for (int job = first; job < last; ++job) {
      const auto [r, start] = step.tiles[job / a.kv_heads];
      const Row& span = step.rows[r];
      Tile tile;
      tile.token = span.token + start;
      tile.queries = std::min(TILE_QUERIES, span.count - start);
      tile.position = span.position + start;
      tile.end = span.position + span.count;
      tile.to_block = ((a.causal ? tile.position + tile.queries : tile.end) - 1) / PAGE + 1;
      tile.pages = step.table(op.group, r);
      k_.attend(a, m_.states_[op.layer], tile, job % a.kv_heads, row(op.q, 0), row(op.out, 0), m_.widths_[op.q],
                m_.own_[member_].attention.data());
      if (!op.out_planes) continue;
      const int width = a.heads / a.kv_heads * a.dim, head = job % a.kv_heads * width;
      for (int i = 0; i < tile.queries; ++i)
        k_.quantise(coded(op.out, op.out_planes), tile.token + i, head, head + width);
    }
  });
}

// ---- mixtures of experts ----

void Runner::operator()(const Route& op) {
  const Matrix& w = m_.weights_[op.weight];
  const Rows x = prepare(op.x, w.inputs, Norm{}, 2, w.quantised(), false);
  share(count(), 1, [&](int first, int last) {
    std::vector<float> odds(w.panels() * PANEL);
    std::vector<int> order(op.experts);
    for (int i = first; i < last; ++i) {
      Rows one = x;
      one.values += size_t(i) * x.stride;
      for (auto& codes : one.codes) codes += size_t(i) * x.inputs;
      one.scales += size_t(i) * x.inputs / SCALE_INPUTS;
      one.sums += size_t(i) * x.inputs / SUM_INPUTS;
      one.totals += size_t(i) * x.inputs / SCALE_INPUTS;
      k_.multiply(w, one, 1, 0, w.panels(), odds.data(), odds.size(), false);
      choose_experts(k_, odds.data(), op, order.data(), row(op.out, i));
    }
  });
}

void Runner::operator()(const Experts& op) {
  std::vector<int> slots;
  for (size_t expert = 0; expert < op.gate.size(); ++expert) {
    slots.clear();
    for (int i = 0; i < count(); ++i)
      for (int rank = 0; rank < op.top_k; ++rank)
        if (static_cast<size_t>(row(op.routes, i)[rank]) == expert) slots.push_back(i * op.top_k + rank);
    if (!slots.empty()) expert_rows(op, static_cast<int>(expert), slots);
  }
  const int width = m_.widths_[op.out];
  share(count(), 1, [&](int first, int last) {
    for (int i = first; i < last; ++i) {
      float* out = row(op.out, i);
      const float* share = row(op.routes, i) + op.top_k;
      for (int rank = 0; rank < op.top_k; ++rank) {
        const float* y = m_.expert_out_.data() + (size_t(i) * op.top_k + rank) * width;
        for (int j = 0; j < width; ++j) out[j] = rank ? out[j] + y[j] * share[rank] : y[j] * share[rank];
      }
    }
  });
}

// All slots (token * top_k + rank) of one expert through its three matrices.
void Runner::expert_rows(const Experts& op, int expert, const std::vector<int>& slots) {
  const int rows = static_cast<int>(slots.size()), hidden = m_.widths_[op.x];
  Scratch& shared = m_.shared_;
  const bool quantise =
      m_.weights_[op.gate[expert]].quantised() || (!op.up.empty() && m_.weights_[op.up[expert]].quantised());
  const Rows x = rows_of(shared, hidden, op.planes);
  share(rows, 1, [&](int first, int last) {
    for (int i = first; i < last; ++i)
      prepare_row(x, i, row(op.x, slots[i] / op.top_k), Norm{}, quantise, shared);
  });
  float *middle = m_.expert_middle_.data(), *up = m_.expert_up_.data();
  expert_product(op.gate[expert], x, rows, middle, op.width);
  if (!op.up.empty()) {
    expert_product(op.up[expert], x, rows, up, op.width);
  }
  const Matrix& down = m_.weights_[op.down[expert]];
  const Rows y = rows_of(shared, op.width, op.planes);
  share(rows, 1, [&](int first, int last) {
    for (int i = first; i < last; ++i) {
      float* line = middle + size_t(i) * op.width;
      k_.activate(op.activation, line, op.up.empty() ? nullptr : up + size_t(i) * op.width, line, op.width);
      prepare_row(y, i, line, Norm{}, down.quantised(), shared);
    }
  });
  const int width = m_.widths_[op.out];
  float* out = m_.expert_down_.data();
  expert_product(op.down[expert], y, rows, out, width);
  share(rows, 1, [&](int first, int last) {
    for (int i = first; i < last; ++i)
      std::copy_n(out + size_t(i) * width, width, m_.expert_out_.data() + size_t(slots[i]) * width);
  });
}

void Runner::expert_product(int weight, const Rows& x, int rows, float* out, size_t stride) {
  const Matrix& w = m_.weights_[weight];
  share_panels(w.panels(), [&](int from, int to) { k_.multiply(w, x, rows, from, to, out, stride, false); });
}

// ---- logits ----

void Runner::operator()(const Keep& op) {
  // One piece: each row goes to a place before or at its own.
  share(1, 1, [&](int, int) {
    Step& step = m_.step_;
    const int width = m_.widths_[op.x];
    for (size_t i = 0; i < step.kept.size(); ++i)
      std::memmove(row(op.x, static_cast<int>(i)), row(op.x, step.kept[i]), width * sizeof(float));
    step.count = static_cast<int>(step.kept.size());
  });
}

void Runner::operator()(const Head& op) {
  const Matrix& w = m_.weights_[op.weight];
  const size_t vocab = w.outputs;
  const Rows x = prepare(op.x, w.inputs, Norm{}, op.planes, w.quantised(), false);
  if (count())
    share_panels(w.panels(), [&](int from, int to) {
      k_.multiply(w, x, count(), from, to, m_.logits_, vocab, false);
      const size_t begin = size_t(from) * PANEL, end = std::min<size_t>(size_t(to) * PANEL, vocab);
      for (int i = 0; i < count(); ++i) {
        float* logits = m_.logits_ + i * vocab;
        if (op.bias)
          for (size_t j = begin; j < end; ++j) logits[j] += op.bias[j];
        if (op.scale != 1 || op.softcap != 0) k_.soften(logits + begin, end - begin, op.scale, op.softcap);
      }
    });
}

}  // namespace headrace

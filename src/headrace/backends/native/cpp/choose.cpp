#include "choose.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

namespace headrace {

namespace {

// A number whose words are kept apart, so that no type beyond the standard is needed.
void multiply(uint64_t a, uint64_t b, uint64_t& high, uint64_t& low) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  high = static_cast<uint64_t>(product >> 64);
  low = static_cast<uint64_t>(product);
}

// 1 - u of a random word, and its Gumbel value.
double complement(uint64_t raw) { return 1 - (static_cast<double>(raw >> 12) + 0.5) * 0x1p-52; }
double gumbel(uint64_t raw) { return -std::log(-std::log((static_cast<double>(raw >> 12) + 0.5) * 0x1p-52)); }

// In sixteen lanes, which a compiler can take together.
float greatest(const float* x, size_t n) {
  float lanes[16];
  std::fill(lanes, lanes + 16, x[0]);
  for (size_t i = 0; i + 16 <= n; i += 16)
    for (size_t j = 0; j < 16; ++j) lanes[j] = x[i + j] > lanes[j] ? x[i + j] : lanes[j];
  for (size_t i = n / 16 * 16; i < n; ++i) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  return *std::max_element(lanes, lanes + 16);
}

struct Row {
  const float* logits;
  size_t vocab;
  double best, temperature;
  std::vector<float> odds;  // exp(scaled), to fp32 precision

  double scaled(int id) const { return (logits[id] - best) / temperature; }
  bool before(int a, int b) const { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); }
};

std::vector<int> ranked(const Row& row, float least) {
  std::vector<int> ids;
  for (size_t i = 0; i < row.vocab; ++i)
    if (row.odds[i] >= least) ids.push_back(static_cast<int>(i));
  std::sort(ids.begin(), ids.end(), [&](int a, int b) { return row.before(a, b); });
  return ids;
}

// The first `count` ids, best first: a heap whose worst member stands in front.
std::vector<int> best_ids(const Row& row, size_t count) {
  const auto before = [&](int a, int b) { return row.before(a, b); };
  std::vector<int> heap;
  for (size_t i = 0; i < row.vocab; ++i) {
    const int id = static_cast<int>(i);
    if (heap.size() < count) {
      heap.push_back(id);
      std::push_heap(heap.begin(), heap.end(), before);
    } else if (row.before(id, heap.front())) {
      std::pop_heap(heap.begin(), heap.end(), before);
      heap.back() = id;
      std::push_heap(heap.begin(), heap.end(), before);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

double mass(const Row& row, const std::vector<int>& ids) {
  double total = 0;
  for (int id : ids) total += std::exp(row.scaled(id));
  return total;
}

// Ranked ids of which a prefix holds at least `wanted` of `total`.
std::vector<int> nucleus(const Row& row, double wanted, double total) {
  for (float least = 1e-3f; least > 1e-30f; least *= 1e-2f) {
    std::vector<int> ids = ranked(row, least);
    if (mass(row, ids) >= wanted * total) return ids;
  }
  return ranked(row, 0);
}

double total_mass(const Row& row) {
  double parts[8] = {};
  for (size_t i = 0; i < row.vocab; ++i) parts[i % 8] += row.odds[i];
  return ((parts[0] + parts[1]) + (parts[2] + parts[3])) + ((parts[4] + parts[5]) + (parts[6] + parts[7]));
}

std::vector<int> candidates(const Row& row, const Choice& choice) {
  std::vector<int> ids;
  double total = 0;
  if (choice.top_k) {
    ids = best_ids(row, std::min<size_t>(choice.top_k, row.vocab));
    total = mass(row, ids);
  } else if (choice.top_p < 1) {
    total = total_mass(row);
    ids = nucleus(row, choice.top_p, total);
  } else {
    ids = ranked(row, static_cast<float>(choice.min_p) * 0.999f);
  }
  if (choice.top_p < 1) {
    double sum = 0;
    size_t kept = 0;
    while (kept < ids.size() && sum < choice.top_p) sum += std::exp(row.scaled(ids[kept++])) / total;
    ids.resize(kept);
  }
  if (choice.min_p > 0) {
    const double least = row.scaled(ids[0]) + std::log(choice.min_p);
    ids.erase(std::remove_if(ids.begin(), ids.end(), [&](int id) { return row.scaled(id) < least; }), ids.end());
  }
  return ids;
}

// A token can only win where 1 - u < exp(scaled - best score), since u > exp(-x) implies 1 - u < x.
int choose_among_all(const Row& row, const Choice& choice) {
  const auto word = [&](size_t id) {
    uint64_t out[4];
    philox(choice.key, id / 4, choice.position, out);
    return out[id % 4];
  };
  const size_t top = std::find(row.logits, row.logits + row.vocab, static_cast<float>(row.best)) - row.logits;
  size_t winner = top;
  double score = gumbel(word(top)), bound = std::exp(-score) * 1.001;
  for (size_t block = 0; block * 4 < row.vocab; ++block) {
    const size_t end = std::min(row.vocab, block * 4 + 4);
    uint64_t out[4];
    philox(choice.key, block, choice.position, out);
    for (size_t id = block * 4; id < end; ++id) {
      if (complement(out[id % 4]) >= row.odds[id] * bound) continue;
      const double found = row.scaled(static_cast<int>(id)) + gumbel(out[id % 4]);
      if (found > score || (found == score && id < winner)) {
        winner = id;
        score = found;
        bound = std::exp(-score) * 1.001;
      }
    }
  }
  return static_cast<int>(winner);
}

}  // namespace

void philox(const uint64_t key[2], uint64_t block, uint64_t position, uint64_t out[4]) {
  uint64_t c[4] = {block + 1, position, 0, 0}, k[2] = {key[0], key[1]};
  for (int round = 0; round < 10; ++round) {
    uint64_t high0, low0, high1, low1;
    multiply(0xD2E7470EE14C6C93, c[0], high0, low0);
    multiply(0xCA5A826395121157, c[2], high1, low1);
    const uint64_t next[4] = {high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0};
    std::copy(next, next + 4, c);
    k[0] += 0x9E3779B97F4A7C15;
    k[1] += 0xBB67AE8584CAA73B;
  }
  std::copy(c, c + 4, out);
}

int choose(const Kernels& kernels, const float* logits, size_t vocab, const Choice& choice) {
  const float best = greatest(logits, vocab);
  if (!std::isfinite(best)) throw std::domain_error("the model's logits are not finite");
  // Below the least temperature of odds only the best are left, as in double precision.
  const float temperature = std::max(static_cast<float>(choice.temperature), 1e-30f);
  Row row{logits, vocab, best, choice.temperature, std::vector<float>(vocab)};
  kernels.exponentials(logits, vocab, best, temperature, row.odds.data());
  if (!choice.top_k && choice.top_p >= 1 && choice.min_p <= 0) return choose_among_all(row, choice);
  int winner = -1;
  double score = 0;
  for (int id : candidates(row, choice)) {
    uint64_t out[4];
    philox(choice.key, static_cast<uint64_t>(id) / 4, choice.position, out);
    const double found = row.scaled(id) + gumbel(out[id % 4]);
    if (winner < 0 || found > score) {
      winner = id;
      score = found;
    }
  }
  return winner;
}

}  // namespace headrace

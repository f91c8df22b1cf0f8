// Drawing one token from one row of logits, as headrace/engine/sampling.py defines it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace headrace {

struct Choice {
  double temperature;
  int top_k;     // 0: all
  double top_p;  // 1: all
  double min_p;  // 0: all
  uint64_t key[2];
  uint64_t position;
};

// The candidate with the greatest logit / temperature + Gumbel noise; equal ones rank by place.
// Throws std::domain_error where the greatest logit is not finite.
int choose(const Kernels& kernels, const float* logits, size_t vocab, const Choice& choice);

// Four random words of numpy's Philox 4x64-10, for tokens 4 * block to 4 * block + 3.
void philox(const uint64_t key[2], uint64_t block, uint64_t position, uint64_t out[4]);

}  // namespace headrace

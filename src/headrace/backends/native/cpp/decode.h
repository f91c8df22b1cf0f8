// Scalar pieces that no instruction set speeds up enough to matter.
#pragma once

#include "model.h"

namespace headrace {

// Values of one output of a matrix: out [inputs].
void decode_row(const Matrix& w, int output, float* out);

// The op.top_k likeliest of softmax(odds), to `route`: numbers, then weights. Equal ones rank by number.
void choose_experts(const Kernels& kernels, float* odds, const Route& op, int* order, float* route);

}  // namespace headrace

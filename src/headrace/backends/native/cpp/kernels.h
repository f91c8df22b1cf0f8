// The table of kernels: one for each instruction set, chosen once when a model is loaded.
//
// A kernel computes each output value from its own inputs by one fixed chain of operations, so neither the
// number of rows, nor how work is cut among threads, nor the instruction set changes a bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

constexpr int PANEL = 16;         // outputs of a matrix that are stored and computed together
constexpr int SCALE_INPUTS = 32;  // activations that share a scale
constexpr int SUM_INPUTS = 16;    // activations whose codes are summed together
constexpr int PAGE = 16;          // positions of a page, and of an attention block

// How a weight is stored. codesN: unsigned N-bit codes; value = d * (code - offset) or d * code + m.
enum class Format : int { codes4, codes5, codes6, codes8, bf16, f16, f32 };

// A matrix [outputs, inputs] in panels of 16 outputs; `weights.py` writes it, `matrix.h` reads it.
//
// A panel of codes is a run of groups of `group` inputs. In a group stand the low 4 bits, two quads of inputs
// in 64 bytes (byte 4 * output + input; low nibble the even quad, high nibble the odd one), or 64 bytes a quad
// for codes8; then for codes5 and codes6 one and two planes of higher bits, 8 bytes a quad; then d of the 16
// outputs, then m where `affine`; fp32 where `wide`, else fp16. A panel of floats holds 16 values an input.
struct Matrix {
  Format format;
  int outputs, inputs;
  int group;
  int offset;
  bool affine, wide;
  const uint8_t* data;
  size_t panel_bytes;

  int panels() const { return (outputs + PANEL - 1) / PANEL; }
  bool quantised() const { return format <= Format::codes8; }
};

// Rows that enter a product: the float32 values, and for quantised weights their codes.
//
// Codes are int8 in `planes` planes [rows, inputs]: with two, a value's code is 256 * first + second.
struct Rows {
  const float* values;
  size_t stride;
  int inputs;
  int planes;
  int8_t* codes[2];  // [rows, inputs]
  float* scales;     // [rows, inputs / 32]
  int32_t* sums;     // [rows, inputs / 16]: sums of codes
  float* totals;     // [rows, inputs / 32]: sums of codes times scale
};

enum class Activation : int { none, silu, gelu, gelu_tanh, relu };

struct Attention {
  int heads, kv_heads, dim;
  float scale;
  float softcap;  // 0: none
  int window;     // keys a query sees, itself included; 0: all
  bool causal;
  int value_dim() const { return (dim + 15) / 16 * 16; }  // values are padded to whole vectors
};

// How a key or value is stored: as a float, or as a code of 8 bits times the fp32 scale of its position and head.
enum class StateType : int { fp16, fp32, int8 };

// Keys [page, kv head, dim, 16 positions] and values [page, kv head, 16 positions, value_dim]. With int8 the
// scales of the 16 positions follow each KV head's codes in a page.
struct LayerState {
  void* keys;
  void* values;
  StateType type;
};

// Consecutive queries of one sequence, which see no key from block `to_block` on.
struct Tile {
  int token;     // of the first query, in the flat buffers
  int queries;
  int position;  // of the first query
  int end;       // positions of the sequence that exist after this step
  int to_block;
  const int32_t* pages;  // page of each block of the sequence
};

struct Norm {
  int width, parts;  // each of `parts` equal parts of a row of `width` values is normalised with one gain
  float eps;
  bool layer;  // LayerNorm, else RMSNorm
  const float* gain;
  const float* bias;  // null: none
};

struct Kernels {
  const char* name;

  // Codes, scales, sums and totals of inputs [from, to) of a row, whole groups.
  void (*quantise)(const Rows& x, int row, int from, int to);
  // out[row * stride + output] = or, where `add`, += products, for rows [0, rows) and panels [from, to).
  void (*multiply)(const Matrix& w, const Rows& x, int rows, int from, int to, float* out, size_t stride, bool add);

  // One row; y may be x.
  void (*normalise)(const Norm& norm, const float* x, float* y);
  // One row of `heads` heads of `dim` values: turns the first 2 * half of each.
  void (*rotate)(float* x, int heads, int dim, int half, const float* cos, const float* sin);
  // out = activation(gate) (* up), n values; out may be gate.
  void (*activate)(Activation kind, const float* gate, const float* up, float* out, size_t n);
  // logits = cap * tanh(scale * logits / cap); cap 0: only the scale.
  void (*soften)(float* logits, size_t n, float scale, float cap);

  // out = exp((x - best) / temperature), n values.
  void (*exponentials)(const float* x, size_t n, float best, float temperature, float* out);

  // Stores k and v [kv heads, dim] of one token.
  void (*store_state)(const Attention& a, const LayerState& state, int page, int offset, const float* k, const float* v);
  // Attention of a tile's queries for one KV head: q and out [tokens, stride]. `scratch`: attend_floats() values.
  void (*attend)(const Attention& a, const LayerState& state, const Tile& tile, int kv_head, const float* q,
                 float* out, size_t stride, float* scratch);
};

// Queries that stand in one tile at most; a scheduling choice, without effect on any bit.
constexpr int TILE_QUERIES = 16;
size_t attend_floats(const Attention& a, int blocks);

extern const Kernels portable_kernels;
#if defined(HEADRACE_X86)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#elif defined(HEADRACE_ARM)
extern const Kernels neon_kernels;
#endif

}  // namespace headrace

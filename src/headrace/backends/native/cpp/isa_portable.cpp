#define HEADRACE_PORTABLE  // whatever the compiler may use by default
#define HEADRACE_ISA headrace_portable
#define HEADRACE_TABLE portable_kernels
#define HEADRACE_NAME "portable"
#include "isa.inc.h"

size_t headrace::attend_floats(const Attention& a, int blocks) {
  const size_t row = static_cast<size_t>(blocks) * PAGE + static_cast<size_t>(a.dim);
  return isa::MOST_ROWS * row + PAGE;  // and room to align them
}

#if defined(HEADRACE_X86)
#define HEADRACE_ISA headrace_avx512
#define HEADRACE_TABLE avx512_kernels
#define HEADRACE_NAME "avx512"
#include "isa.inc.h"
#endif

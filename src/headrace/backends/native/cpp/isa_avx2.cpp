#if defined(HEADRACE_X86)
#define HEADRACE_ISA headrace_avx2
#define HEADRACE_TABLE avx2_kernels
#define HEADRACE_NAME "avx2"
#include "isa.inc.h"
#endif

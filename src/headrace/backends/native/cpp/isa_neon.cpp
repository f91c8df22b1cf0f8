#if defined(HEADRACE_ARM)
#define HEADRACE_ISA headrace_neon
#define HEADRACE_TABLE neon_kernels
#define HEADRACE_NAME "neon"
#include "isa.inc.h"
#endif

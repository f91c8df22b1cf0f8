// The kernels of the instruction set that HEADRACE_ISA names, as the table HEADRACE_TABLE.
#include "attention.h"
#include "kernels.h"
#include "matrix.h"
#include "rows.h"

namespace isa = HEADRACE_ISA;

const headrace::Kernels headrace::HEADRACE_TABLE = {
    HEADRACE_NAME, isa::quantise, isa::multiply, isa::normalise, isa::rotate,
    isa::activate, isa::soften,   isa::exponentials, isa::store_state, isa::attend,
};

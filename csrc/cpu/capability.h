#pragma once

#include "cpu/arguments.h"

namespace memattn::cpu {

// The kernels for the best instruction set this processor has, chosen once. ATEN_CPU_CAPABILITY
// caps it, as it caps torch's own kernels; avx512 leaves out the bfloat16 instructions, for which
// torch has no word.
const Kernels& kernels();

}  // namespace memattn::cpu

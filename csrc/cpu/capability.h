#pragma once

#include "cpu/arguments.h"

namespace memattn::cpu {

// The kernels for the best instruction set this processor has, chosen once. ATEN_CPU_CAPABILITY
// caps it, as it caps torch's own kernels.
const Kernels& kernels();

}  // namespace memattn::cpu

// Launches: one function for each head dimension that there is a kernel for.
#pragma once

#include <cuda_runtime.h>

#include "cuda/arguments.h"

namespace memattn::cuda {

// `blocks` is B * H * chunks.
template <int kDim>
cudaError_t attend(const ForwardArguments& call, Dtype dtype, bool statistics, int blocks,
                   cudaStream_t stream);

}  // namespace memattn::cuda

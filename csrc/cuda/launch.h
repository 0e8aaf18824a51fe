// Launches: one function for each head dimension that there is a kernel for.
#pragma once

#include <cuda_runtime.h>

#include "cuda/arguments.h"

namespace memattn::cuda {

// `blocks` is B * H * chunks; `most_shared` the bytes of shared memory that a block of this GPU may
// have, which are enough.
template <int kDim>
cudaError_t attend(const ForwardArguments& call, Dtype dtype, bool statistics, int blocks,
                   int most_shared, cudaStream_t stream);

}  // namespace memattn::cuda

// Launches: one function for each head dimension that there is a kernel for.
#pragma once

#include <cuda_runtime.h>

#include "cuda/arguments.h"

namespace memattn::cuda {

// What a launch has to know of the GPU.
struct Device {
  int most_shared;  // bytes of shared memory that a block may have
  int processors;   // multiprocessors
};

// The call says everything but how many blocks there are; it fits the device's shared memory.
template <int kDim>
cudaError_t attend(ForwardArguments call, Dtype dtype, bool statistics, const Device& device,
                   cudaStream_t stream);

}  // namespace memattn::cuda

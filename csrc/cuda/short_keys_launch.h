// What a file of one head dimension compiles: `attend<kDim>` and its kernels.
#pragma once

#include "cuda/launch.h"
#include "cuda/plan.h"
#include "cuda/short_keys.h"

namespace memattn::cuda {

// Blocks that are to fit a multiprocessor, 0 to leave it to the compiler: with few keys it would
// take registers for five and spill.
constexpr int blocks_to_fit(int padded_keys) { return padded_keys == 32 ? 3 : 0; }

template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
__global__ void __launch_bounds__(32 * kWarps, blocks_to_fit(kKeys))
    short_keys_kernel(const __grid_constant__ ForwardArguments call) {
  extern __shared__ __align__(16) char shared[];
  ShortKeys<kDtype, kDim, kKeys, kStatistics>::run(call, shared, blockIdx.x, threadIdx.x);
}

template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
cudaError_t launch(const ForwardArguments& call, int blocks, cudaStream_t stream) {
  constexpr auto kernel = short_keys_kernel<kDtype, kDim, kKeys, kStatistics>;
  constexpr int bytes = shared_bytes(kDim, kKeys, kStatistics);
  if constexpr (bytes > 48 * 1024) {  // more has to be asked for, on the device of the moment
    const auto most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    if (const cudaError_t error = cudaFuncSetAttribute(kernel, most, bytes)) return error;
  }
  kernel<<<blocks, 32 * kWarps, bytes, stream>>>(call);
  return cudaGetLastError();
}

template <Dtype kDtype, int kDim, bool kStatistics>
cudaError_t launch(const ForwardArguments& call, int padded_keys, int blocks, cudaStream_t stream) {
  static_assert(kPaddedKeys[0] == 32 && kPaddedKeys[1] == 80 && kPaddedKeys[2] == 128);
  switch (padded_keys) {
    case 32: return launch<kDtype, kDim, 32, kStatistics>(call, blocks, stream);
    case 80: return launch<kDtype, kDim, 80, kStatistics>(call, blocks, stream);
    default: return launch<kDtype, kDim, 128, kStatistics>(call, blocks, stream);
  }
}

template <int kDim>
cudaError_t attend(const ForwardArguments& call, Dtype dtype, int padded_keys, bool statistics,
                   int blocks, cudaStream_t stream) {
  using enum Dtype;
  if (dtype == kFloat16)
    return statistics ? launch<kFloat16, kDim, true>(call, padded_keys, blocks, stream)
                      : launch<kFloat16, kDim, false>(call, padded_keys, blocks, stream);
  return statistics ? launch<kBFloat16, kDim, true>(call, padded_keys, blocks, stream)
                    : launch<kBFloat16, kDim, false>(call, padded_keys, blocks, stream);
}

}  // namespace memattn::cuda

// What a file of one head dimension compiles: `attend<kDim>` and its kernels.
#pragma once

#include "cuda/launch.h"
#include "cuda/long_keys.h"
#include "cuda/plan.h"
#include "cuda/short_keys.h"

namespace memattn::cuda {

// Blocks that are to fit a multiprocessor, 0 to leave it to the compiler: with few keys it would
// take registers for five and spill.
constexpr int blocks_to_fit(int padded_keys) { return padded_keys == 32 ? 3 : 0; }

template <Dtype kDtype, int kDim, int kKeys, bool kStatistics>
__global__ void __launch_bounds__(32 * kShortWarps, blocks_to_fit(kKeys))
    short_keys_kernel(const __grid_constant__ ForwardArguments call) {
  extern __shared__ __align__(16) char shared[];
  ShortKeys<kDtype, kDim, kKeys, kStatistics>::run(call, shared, blockIdx.x, threadIdx.x);
}

template <Dtype kDtype, int kDim, bool kStatistics>
__global__ void __launch_bounds__(32 * kLongWarps)
    long_keys_kernel(const __grid_constant__ ForwardArguments call) {
  extern __shared__ __align__(16) char shared[];
  LongKeys<kDtype, kDim, kStatistics>::run(call, shared, blockIdx.x, threadIdx.x);
}

template <Dtype kDtype, int kDim, bool kStatistics>
cudaError_t launch(ForwardArguments& call, const Device& device, cudaStream_t stream) {
  static_assert(kShortKeys[0] == 32 && kShortKeys[1] == 80 && kShortKeys[2] == 128);
  void (*kernel)(ForwardArguments);
  switch (call.padded_keys) {
    case 32: kernel = short_keys_kernel<kDtype, kDim, 32, kStatistics>; break;
    case 80: kernel = short_keys_kernel<kDtype, kDim, 80, kStatistics>; break;
    case 128: kernel = short_keys_kernel<kDtype, kDim, 128, kStatistics>; break;
    default: kernel = long_keys_kernel<kDtype, kDim, kStatistics>;
  }
  const int threads = 32 * (is_short(call.keys) ? kShortWarps : kLongWarps);
  const int bytes = shared_bytes(kDim, call.padded_keys, kStatistics);
  // More has to be asked for. Not for this call alone: another thread may be launching the kernel
  // for other keys.
  constexpr auto kMost = cudaFuncAttributeMaxDynamicSharedMemorySize;
  if (bytes > 48 * 1024 && cudaFuncSetAttribute(kernel, kMost, device.most_shared) != cudaSuccess)
    return cudaGetLastError();
  int at_a_time = 0;
  if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&at_a_time, kernel, threads, bytes) !=
      cudaSuccess)
    return cudaGetLastError();
  call.blocks = blocks_of(call.all_chunks, device.processors, at_a_time);
  kernel<<<call.blocks, threads, bytes, stream>>>(call);
  return cudaGetLastError();
}

template <int kDim>
cudaError_t attend(ForwardArguments call, Dtype dtype, bool statistics, const Device& device,
                   cudaStream_t stream) {
  using enum Dtype;
  if (dtype == kFloat16)
    return statistics ? launch<kFloat16, kDim, true>(call, device, stream)
                      : launch<kFloat16, kDim, false>(call, device, stream);
  return statistics ? launch<kBFloat16, kDim, true>(call, device, stream)
                    : launch<kBFloat16, kDim, false>(call, device, stream);
}

}  // namespace memattn::cuda

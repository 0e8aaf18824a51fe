#include "cuda/cross_attention.h"

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include <cmath>
#include <limits>

#include "cuda/fold.h"
#include "cuda/launch.h"
#include "cuda/plan.h"

// Only torch with CUDA has it. The library can be loaded by one without, where it has no device.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

namespace memattn::cuda {
namespace {

constexpr char kOp[] = "cross_attention";

__global__ void __launch_bounds__(kFoldThreads)
    fold_kernel(const __grid_constant__ FoldArguments call) {
  fold_head(call, blockIdx.x, blockIdx.y == 1, threadIdx.x);
}

void check_done(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, kOp, ": ", cudaGetErrorString(error));
}

cudaStream_t current_stream(int32_t device) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream, kOp, ": this torch has no CUDA");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

// As the kernels read it: 16 bytes at a time, from addresses that are multiples of 16.
Tensor readable(const Tensor& tensor) {
  bool aligned =
      tensor.stride(3) == 1 && reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 16 == 0;
  for (int axis = 0; axis < 3; ++axis)
    aligned = aligned && (tensor.size(axis) == 1 || tensor.stride(axis) % 8 == 0);
  aligned = aligned && tensor.stride(2) <= std::numeric_limits<int>::max();
  if (aligned) return tensor;
  Tensor copy = torch::stable::new_empty(
      tensor, {tensor.size(0), tensor.size(1), tensor.size(2), tensor.size(3)});
  torch::stable::copy_(copy, tensor);
  return copy;
}

void check_device(const char* name, const std::optional<Tensor>& tensor, const Tensor& query) {
  if (!tensor) return;
  STD_TORCH_CHECK(tensor->is_cuda() && tensor->get_device_index() == query.get_device_index(), kOp,
                  ": ", name, ": got another device than the query's");
}

Rows rows_of(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1),
          static_cast<int>(tensor.stride(2))};
}

Dtype dtype_of(const Tensor& tensor) {
  if (tensor.scalar_type() == ScalarType::Half) return Dtype::kFloat16;
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::BFloat16, kOp,
                  ": got a dtype it does not take, expected bfloat16 or float16");
  return Dtype::kBFloat16;
}

decltype(&attend<64>) attend_of(int64_t dim) {
  switch (dim) {
    case 40: return attend<40>;
    case 64: return attend<64>;
    case 72: return attend<72>;
    case 80: return attend<80>;
    case 96: return attend<96>;
    case 112: return attend<112>;
    case 128: return attend<128>;
    case 160: return attend<160>;
    default: break;
  }
  STD_TORCH_CHECK(false, kOp, ": got a head dimension of ", dim,
                  ", expected 40, 64, 72, 80, 96, 112, 128 or 160");
}

Device device_of(int32_t index) {
  Device device;
  check_done(
      cudaDeviceGetAttribute(&device.most_shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  check_done(cudaDeviceGetAttribute(&device.processors, cudaDevAttrMultiProcessorCount, index));
  return device;
}

// [B, H, chunks, keys], or [0] where there are no sums.
Tensor partial_sums(const Tensor& like, bool wanted, int64_t chunks, int64_t keys) {
  if (!wanted) return torch::stable::new_empty(like, {0}, ScalarType::Float);
  return torch::stable::new_empty(like, {like.size(0), like.size(1), chunks, keys},
                                  ScalarType::Float);
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_attention(
    const Tensor& any_query, const Tensor& any_key, const Tensor& any_value,
    const std::optional<Tensor>& any_key_bias, const std::optional<Tensor>& any_begin_scale,
    const std::optional<Tensor>& any_token, double scale, bool statistics, bool logsumexp) {
  check_attention(kOp, any_query, any_key, any_value, any_key_bias, any_begin_scale);
  check(kOp, "token", any_token, {any_query.size(0)});
  check_device("key", any_key, any_query);
  check_device("value", any_value, any_query);
  check_device("key_bias", any_key_bias, any_query);
  check_device("begin_scale", any_begin_scale, any_query);
  check_device("token", any_token, any_query);
  const torch::stable::accelerator::DeviceGuard guard(any_query.get_device_index());
  const Tensor query = readable(any_query), key = readable(any_key), value = readable(any_value);
  const auto key_bias = contiguous_as(any_key_bias, ScalarType::Float);
  const auto begin_scale = contiguous_as(any_begin_scale, ScalarType::Float);
  const auto token = contiguous_as(any_token, ScalarType::Long);
  const int64_t heads = query.size(0) * query.size(1);
  const int64_t queries = query.size(2), keys = key.size(2), dim = query.size(3);
  STD_TORCH_CHECK(keys <= kMostKeys, kOp, ": got ", keys, " keys, expected at most ", kMostKeys);
  STD_TORCH_CHECK(0 < queries && queries <= kMostQueries, kOp, ": got ", queries,
                  " queries, expected 1 to ", kMostQueries);
  const Plan cut = plan(static_cast<int>(queries), static_cast<int>(keys));
  STD_TORCH_CHECK(heads * cut.chunks <= kMostChunks, kOp, ": got ", heads,
                  " heads of all samples, expected at most ", kMostChunks / cut.chunks);
  const auto attend = attend_of(dim);
  const Device device = device_of(query.get_device_index());
  const int needed = shared_bytes(static_cast<int>(dim), static_cast<int>(keys), statistics);
  STD_TORCH_CHECK(needed <= device.most_shared, kOp, ": got ", keys, " keys of dimension ", dim,
                  ", which take ", needed, " bytes of shared memory, expected at most ",
                  device.most_shared, " on this GPU");

  const Tensor output = empty_heads_last(query);
  const Tensor token_map = empty_float32(query, token.has_value(), queries);
  const Tensor lse = empty_float32(query, logsumexp, queries);
  const bool folds = statistics && cut.chunks > 1;
  Tensor mass = empty_float32(query, statistics, keys);
  Tensor entropy = empty_float32(query, statistics, keys);
  const Tensor mass_parts = partial_sums(query, folds, cut.chunks, keys);
  const Tensor entropy_parts = partial_sums(query, folds, cut.chunks, keys);
  if (heads == 0) return {output, mass, entropy, token_map, lse};

  const ForwardArguments call = {
      .query = rows_of(query),
      .key = rows_of(key),
      .value = rows_of(value),
      .key_bias = data_or_null<float>(key_bias),
      .begin_scale = data_or_null<float>(begin_scale),
      .token = data_or_null<int64_t>(token),
      .output = output.mutable_data_ptr(),
      .mass = floats_or_null(folds ? mass_parts : mass, statistics),
      .entropy = floats_or_null(folds ? entropy_parts : entropy, statistics),
      .token_map = floats_or_null(token_map, token.has_value()),
      .logsumexp = floats_or_null(lse, logsumexp),
      .heads = static_cast<int>(query.size(1)),
      .queries = static_cast<int>(queries),
      .keys = static_cast<int>(keys),
      .padded_keys = padded_keys(static_cast<int>(keys)),
      .tiles = cut.tiles,
      .chunks = cut.chunks,
      .all_chunks = static_cast<int>(heads * cut.chunks),
      .scale_log2 = static_cast<float>(scale * M_LOG2E),
  };
  const cudaStream_t stream = current_stream(query.get_device_index());
  check_done(attend(call, dtype_of(query), statistics, device, stream));
  if (folds) {
    const FoldArguments sums = {
        .mass = call.mass,
        .entropy = call.entropy,
        .folded_mass = floats_or_null(mass, true),
        .folded_entropy = floats_or_null(entropy, true),
        .chunks = cut.chunks,
        .keys = call.keys,
    };
    fold_kernel<<<dim3(static_cast<unsigned>(heads), 2), kFoldThreads, 0, stream>>>(sums);
    check_done(cudaGetLastError());
  }
  return {output, mass, entropy, token_map, lse};
}

}  // namespace memattn::cuda

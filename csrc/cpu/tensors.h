// An op's tensors as plain data for the kernels. For the files that are compiled for any processor.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>

#include "checks.h"
#include "cpu/arguments.h"

namespace memattn::cpu {

// A token is used as an index: values that Python could not look at, in a graph that torch.compile
// was making.
inline void check_token(const char* op, const std::optional<Tensor>& token, int64_t batch,
                        int64_t keys) {
  if (!token) return;
  check(op, "token", *token, {batch});
  const int64_t* const values = static_cast<const int64_t*>(token->const_data_ptr());
  for (int64_t b = 0; b < batch; ++b)
    STD_TORCH_CHECK(0 <= values[b] && values[b] < keys, op, ": token: got ", values[b],
                    ", expected 0 to ", keys - 1);
}

inline Dtype dtype_of(const char* op, const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Dtype::kFloat32;
    case ScalarType::BFloat16: return Dtype::kBFloat16;
    case ScalarType::Half: return Dtype::kFloat16;
    default: break;
  }
  STD_TORCH_CHECK(false, op, ": got a dtype it does not take, expected float32, ",
                  "bfloat16 or float16");
}

// The kernels walk along the last axis one element at a time.
inline Tensor walkable(const Tensor& tensor) {
  return tensor.stride(3) == 1 ? tensor : torch::stable::contiguous(tensor);
}

inline Rows rows_of(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

inline MutableRows mutable_rows_of(const Tensor& tensor) {
  return {tensor.mutable_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

}  // namespace memattn::cpu

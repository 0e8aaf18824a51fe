// An op's tensors: whether they are what the op takes, and how results are made.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace memattn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string listed(const std::vector<int64_t>& shape) {
  std::string list;
  for (const int64_t size : shape) list += (list.empty() ? "" : ", ") + std::to_string(size);
  return "[" + list + "]";
}

// The public functions have checked their arguments; who calls an op itself must not read beyond
// them.
inline void check(const char* op, const char* name, const Tensor& tensor,
                  const std::vector<int64_t>& shape) {
  std::vector<int64_t> got;
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) got.push_back(tensor.size(axis));
  STD_TORCH_CHECK(got == shape, op, ": ", name, ": got shape ", listed(got), ", expected ",
                  listed(shape));
}

inline void check(const char* op, const char* name, const std::optional<Tensor>& tensor,
                  const std::vector<int64_t>& shape) {
  if (tensor) check(op, name, *tensor, shape);
}

// Keys or values that go with a query.
inline void check_like(const char* op, const char* name, const Tensor& tensor, const Tensor& query,
                       int64_t length) {
  check(op, name, tensor, {query.size(0), query.size(1), length, query.size(3)});
  STD_TORCH_CHECK(tensor.scalar_type() == query.scalar_type(), op, ": ", name,
                  ": got another dtype than the query's");
}

inline void check_key(const char* op, const char* name, const Tensor& key, const Tensor& query) {
  STD_TORCH_CHECK(query.dim() == 4 && key.dim() == 4, op, ": got a query or ", name,
                  " without four axes, expected [B, H, L, D]");
  const int64_t keys = key.size(2), dim = query.size(3);
  STD_TORCH_CHECK(keys > 0 && dim > 0 && dim % 8 == 0, op, ": ", name, ": got ", keys,
                  " keys of dimension ", dim, ", expected a key and a multiple of 8");
  check_like(op, name, key, query, keys);
}

// All that attention takes but the token, which is looked at where it is used.
inline void check_attention(const char* op, const Tensor& query, const Tensor& key,
                            const Tensor& value, const std::optional<Tensor>& key_bias,
                            const std::optional<Tensor>& begin_scale) {
  check_key(op, "key", key, query);
  check_like(op, "value", value, query, key.size(2));
  check(op, "key_bias", key_bias, {query.size(0), key.size(2)});
  check(op, "begin_scale", begin_scale, {query.size(0)});
}

inline std::optional<Tensor> contiguous_as(const std::optional<Tensor>& tensor, ScalarType dtype) {
  if (!tensor) return std::nullopt;
  return torch::stable::contiguous(torch::stable::to(*tensor, dtype));
}

template <typename Element>
inline const Element* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const Element*>(tensor->const_data_ptr()) : nullptr;
}

// [B, H, L, D] with the memory of (B, L, H, D), which output projections read without a copy.
inline Tensor empty_heads_last(const Tensor& like) {
  const Tensor memory =
      torch::stable::new_empty(like, {like.size(0), like.size(2), like.size(1), like.size(3)});
  return torch::stable::transpose(memory, 1, 2);
}

// [B, H, length], or [0] where it is not wanted.
inline Tensor empty_float32(const Tensor& like, bool wanted, int64_t length) {
  if (!wanted) return torch::stable::new_empty(like, {0}, ScalarType::Float);
  return torch::stable::new_empty(like, {like.size(0), like.size(1), length}, ScalarType::Float);
}

inline float* floats_or_null(const Tensor& tensor, bool wanted) {
  return wanted ? static_cast<float*>(tensor.mutable_data_ptr()) : nullptr;
}

}  // namespace memattn

// The ops memattn::cross_attention_cpu and its backward: arguments in, tensors out, work to
// threads. Their schemas, fakes and autograd are registered in Python
// (memattn/ops/torch_library.py).

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/arguments.h"
#include "cpu/capability.h"

namespace memattn::cpu {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t kStatisticsPadding = 16;  // floats in the widest vector
constexpr std::align_val_t kCacheLine{64};

struct FreeAligned {
  void operator()(float* memory) const { ::operator delete[](memory, kCacheLine); }
};
using FloatBuffer = std::unique_ptr<float[], FreeAligned>;

// Null where there is no memory: an exception could not leave a thread of torch's.
FloatBuffer allocate(int64_t count) {
  if (count < 0 || count > PTRDIFF_MAX / static_cast<int64_t>(sizeof(float))) return nullptr;
  return FloatBuffer(
      static_cast<float*>(::operator new[](count * sizeof(float), kCacheLine, std::nothrow)));
}

// Multiplications of one product below which a second thread costs more than it does.
constexpr int64_t kLeastWork = 1 << 19;

// Run `work(begin, end, scratch)` over ranges of the units, blocks of so many queries, with so many
// floats for each thread.
template <typename Work>
void run_in_parallel(const Attention& a, int64_t units, int64_t block, int64_t scratch_floats,
                     const Work& work) {
  const int64_t unit_work = std::min(block, a.queries) * a.keys * a.dim;
  const int64_t grain = kLeastWork / std::max<int64_t>(unit_work, 1) + 1;
  std::atomic<bool> has_memory = true;
  torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) {
    const FloatBuffer scratch = allocate(scratch_floats);
    if (scratch) {
      work(begin, end, scratch.get());
    } else {
      has_memory = false;
    }
  });
  STD_TORCH_CHECK(has_memory, "cross_attention_cpu: got no memory for ", scratch_floats,
                  " floats per thread");
}

Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Dtype::kFloat32;
    case ScalarType::BFloat16: return Dtype::kBFloat16;
    case ScalarType::Half: return Dtype::kFloat16;
    default: break;
  }
  STD_TORCH_CHECK(false, "cross_attention_cpu: got a dtype it does not take, expected float32, ",
                  "bfloat16 or float16");
}

std::string listed(const std::vector<int64_t>& shape) {
  std::string list;
  for (const int64_t size : shape) list += (list.empty() ? "" : ", ") + std::to_string(size);
  return "[" + list + "]";
}

// memattn.cross_attention has checked its arguments; who calls the op itself must not read beyond
// them.
void check(const Tensor& tensor, const char* name, const std::vector<int64_t>& shape) {
  std::vector<int64_t> got;
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) got.push_back(tensor.size(axis));
  STD_TORCH_CHECK(got == shape, "cross_attention_cpu: ", name, ": got shape ", listed(got),
                  ", expected ", listed(shape));
}

void check(const Tensor& query, const Tensor& key, const Tensor& value,
           const std::optional<Tensor>& key_bias, const std::optional<Tensor>& begin_scale) {
  STD_TORCH_CHECK(
      query.dim() == 4 && key.dim() == 4,
      "cross_attention_cpu: got a query or key without four axes, expected [B, H, L, D]");
  const int64_t batch = query.size(0), keys = key.size(2), dim = query.size(3);
  STD_TORCH_CHECK(keys > 0 && dim > 0 && dim % 8 == 0, "cross_attention_cpu: got ", keys,
                  " keys of dimension ", dim, ", expected a key and a multiple of 8");
  for (const Tensor* tensor : {&key, &value}) {
    check(*tensor, tensor == &key ? "key" : "value", {batch, query.size(1), keys, dim});
    STD_TORCH_CHECK(tensor->scalar_type() == query.scalar_type(),
                    "cross_attention_cpu: got keys or values of another dtype than the query's");
  }
  if (key_bias) check(*key_bias, "key_bias", {batch, keys});
  if (begin_scale) check(*begin_scale, "begin_scale", {batch});
}

// Values that Python could not look at, in a graph that torch.compile was making.
void check_token(const Tensor& token, int64_t batch, int64_t keys) {
  check(token, "token", {batch});
  const int64_t* const values = static_cast<const int64_t*>(token.const_data_ptr());
  for (int64_t b = 0; b < batch; ++b)
    STD_TORCH_CHECK(0 <= values[b] && values[b] < keys, "token: got ", values[b],
                    ", expected 0 to ", keys - 1);
}

// The kernels walk along the last axis one element at a time.
Tensor walkable(const Tensor& tensor) {
  return tensor.stride(3) == 1 ? tensor : torch::stable::contiguous(tensor);
}

Tensor contiguous_as(const Tensor& tensor, ScalarType dtype) {
  return torch::stable::contiguous(torch::stable::to(tensor, dtype));
}

std::optional<Tensor> contiguous_as(const std::optional<Tensor>& tensor, ScalarType dtype) {
  if (!tensor) return std::nullopt;
  return contiguous_as(*tensor, dtype);
}

template <typename Element>
const Element* data_or_null(const std::optional<Tensor>& tensor) {
  return tensor ? static_cast<const Element*>(tensor->const_data_ptr()) : nullptr;
}

Rows rows_of(const Tensor& tensor) {
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

MutableRows mutable_rows_of(const Tensor& tensor) {
  return {tensor.mutable_data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// [B, H, L, D] with the memory of (B, L, H, D), which output projections read without a copy.
Tensor empty_heads_last(const Tensor& like) {
  const Tensor memory =
      torch::stable::new_empty(like, {like.size(0), like.size(2), like.size(1), like.size(3)});
  return torch::stable::transpose(memory, 1, 2);
}

Tensor empty_float32(const Tensor& like, bool wanted, int64_t length) {
  if (!wanted) return torch::stable::new_empty(like, {0}, ScalarType::Float);
  return torch::stable::new_empty(like, {like.size(0), like.size(1), length}, ScalarType::Float);
}

Attention attention_of(const Tensor& query, const Tensor& key, const Tensor& value,
                       const std::optional<Tensor>& key_bias,
                       const std::optional<Tensor>& begin_scale, double scale) {
  return {
      .dtype = dtype_of(query),
      .batch = query.size(0),
      .heads = query.size(1),
      .queries = query.size(2),
      .keys = key.size(2),
      .dim = query.size(3),
      .scale = static_cast<float>(scale),
      .query = rows_of(query),
      .key = rows_of(key),
      .value = rows_of(value),
      .key_bias = data_or_null<float>(key_bias),
      .begin_scale = data_or_null<float>(begin_scale),
  };
}

// Add the blocks' sums [heads, blocks, stride] in block order, whoever computed them: [heads,
// length].
void fold(const float* parts, int64_t heads, int64_t blocks, int64_t stride, int64_t length,
          float* total) {
  for (int64_t head = 0; head < heads; ++head) {
    const float* const first = parts + head * blocks * stride;
    for (int64_t k = 0; k < length; ++k) {
      double sum = 0.0;
      for (int64_t block = 0; block < blocks; ++block) sum += first[block * stride + k];
      total[head * length + k] = static_cast<float>(sum);
    }
  }
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_attention(
    const Tensor& any_query, const Tensor& any_key, const Tensor& any_value,
    const std::optional<Tensor>& any_key_bias, const std::optional<Tensor>& any_begin_scale,
    const std::optional<Tensor>& any_token, double scale, bool statistics, bool logsumexp) {
  check(any_query, any_key, any_value, any_key_bias, any_begin_scale);
  const Tensor query = walkable(any_query), key = walkable(any_key), value = walkable(any_value);
  const auto key_bias = contiguous_as(any_key_bias, ScalarType::Float);
  const auto begin_scale = contiguous_as(any_begin_scale, ScalarType::Float);
  const auto token = contiguous_as(any_token, ScalarType::Long);
  if (token) check_token(*token, query.size(0), key.size(2));
  const Attention attention = attention_of(query, key, value, key_bias, begin_scale, scale);
  const int64_t blocks = blocks_of(attention.queries, kForwardBlock);
  const int64_t heads = attention.batch * attention.heads;
  const int64_t stride =
      (attention.keys + kStatisticsPadding - 1) / kStatisticsPadding * kStatisticsPadding;

  const Tensor output = empty_heads_last(query);
  const Tensor mass = empty_float32(query, statistics, attention.keys);
  const Tensor entropy = empty_float32(query, statistics, attention.keys);
  const Tensor token_map = empty_float32(query, token.has_value(), attention.queries);
  const Tensor lse = empty_float32(query, logsumexp, attention.queries);

  const FloatBuffer parts = allocate(statistics ? 2 * heads * blocks * stride : 0);
  STD_TORCH_CHECK(parts, "cross_attention_cpu: got no memory for the blocks' sums");
  const Forward call = {
      .attention = attention,
      .token = data_or_null<int64_t>(token),
      .output = mutable_rows_of(output),
      .mass = statistics ? parts.get() : nullptr,
      .entropy = statistics ? parts.get() + heads * blocks * stride : nullptr,
      .statistics_stride = stride,
      .token_map = token ? static_cast<float*>(token_map.mutable_data_ptr()) : nullptr,
      .logsumexp = logsumexp ? static_cast<float*>(lse.mutable_data_ptr()) : nullptr,
  };
  const Kernels& chosen = kernels();
  run_in_parallel(attention, heads * blocks, kForwardBlock, chosen.forward_scratch(call),
                  [&](int64_t begin, int64_t end, float* scratch) {
                    chosen.forward(call, begin, end, scratch);
                  });
  if (statistics) {
    fold(call.mass, heads, blocks, stride, attention.keys,
         static_cast<float*>(mass.mutable_data_ptr()));
    fold(call.entropy, heads, blocks, stride, attention.keys,
         static_cast<float*>(entropy.mutable_data_ptr()));
  }
  return {output, mass, entropy, token_map, lse};
}

std::tuple<Tensor, Tensor, Tensor> cross_attention_backward(
    const Tensor& any_grad_output, const Tensor& any_query, const Tensor& any_key,
    const Tensor& any_value, const std::optional<Tensor>& any_key_bias,
    const std::optional<Tensor>& any_begin_scale, const Tensor& /*output*/,
    const Tensor& any_logsumexp, double scale) {
  check(any_query, any_key, any_value, any_key_bias, any_begin_scale);
  check(any_grad_output, "grad_output",
        {any_query.size(0), any_query.size(1), any_query.size(2), any_query.size(3)});
  check(any_logsumexp, "logsumexp", {any_query.size(0), any_query.size(1), any_query.size(2)});
  STD_TORCH_CHECK(any_grad_output.scalar_type() == any_query.scalar_type() &&
                      any_logsumexp.scalar_type() == ScalarType::Float,
                  "cross_attention_cpu: got a grad_output or logsumexp of another dtype, expected ",
                  "the query's and float32");
  const Tensor query = walkable(any_query), key = walkable(any_key), value = walkable(any_value);
  const Tensor grad_output = walkable(any_grad_output);
  const Tensor logsumexp = torch::stable::contiguous(any_logsumexp);
  const auto key_bias = contiguous_as(any_key_bias, ScalarType::Float);
  const auto begin_scale = contiguous_as(any_begin_scale, ScalarType::Float);
  const Attention attention = attention_of(query, key, value, key_bias, begin_scale, scale);
  const int64_t blocks = blocks_of(attention.queries, kBackwardBlock);
  const int64_t heads = attention.batch * attention.heads;
  const int64_t size = attention.keys * attention.dim;

  const Tensor grad_query = empty_heads_last(query);
  const FloatBuffer parts = allocate(2 * heads * blocks * size);
  STD_TORCH_CHECK(parts, "cross_attention_cpu: got no memory for the blocks' gradients");
  const Backward call = {
      .attention = attention,
      .grad_output = rows_of(grad_output),
      .logsumexp = static_cast<const float*>(logsumexp.const_data_ptr()),
      .grad_query = mutable_rows_of(grad_query),
      .grad_key = parts.get(),
      .grad_value = parts.get() + heads * blocks * size,
  };
  const Kernels& chosen = kernels();
  run_in_parallel(attention, heads * blocks, kBackwardBlock, chosen.backward_scratch(call),
                  [&](int64_t begin, int64_t end, float* scratch) {
                    chosen.backward(call, begin, end, scratch);
                  });
  const auto folded = [&](const Tensor& like, const float* of) {
    const Tensor total = torch::stable::new_empty(
        like, {like.size(0), like.size(1), like.size(2), like.size(3)}, ScalarType::Float);
    fold(of, heads, blocks, size, size, static_cast<float*>(total.mutable_data_ptr()));
    Tensor gradient = empty_heads_last(like);
    torch::stable::copy_(gradient, total);
    return gradient;
  };
  return {grad_query, folded(key, call.grad_key), folded(value, call.grad_value)};
}

std::string cpu_capability() { return kernels().name; }

}  // namespace
}  // namespace memattn::cpu

STABLE_TORCH_LIBRARY_FRAGMENT(memattn, library) { library.def("cpu_capability() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(memattn, CompositeExplicitAutograd, library) {
  library.impl("cpu_capability", TORCH_BOX(&memattn::cpu::cpu_capability));
}

STABLE_TORCH_LIBRARY_IMPL(memattn, CPU, library) {
  library.impl("cross_attention_cpu", TORCH_BOX(&memattn::cpu::cross_attention));
  library.impl("cross_attention_cpu_backward", TORCH_BOX(&memattn::cpu::cross_attention_backward));
}

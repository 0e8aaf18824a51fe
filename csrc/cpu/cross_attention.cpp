// The ops memattn::cross_attention_cpu and its backward: arguments in, tensors out, work to
// threads. Their schemas, fakes and autograd are registered in Python
// (memattn/ops/torch_library/cross_attention.py).

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "cpu/arguments.h"
#include "cpu/capability.h"
#include "cpu/parallel.h"
#include "cpu/tensors.h"

namespace memattn::cpu {
namespace {

constexpr char kOp[] = "cross_attention_cpu";

Logits logits_of(const Tensor& query, const Tensor& key, const std::optional<Tensor>& key_bias,
                 const std::optional<Tensor>& begin_scale, double scale) {
  return {
      .dtype = dtype_of(kOp, query),
      .batch = query.size(0),
      .heads = query.size(1),
      .queries = query.size(2),
      .keys = key.size(2),
      .dim = query.size(3),
      .scale = static_cast<float>(scale),
      .query = rows_of(query),
      .key = rows_of(key),
      .key_bias = data_or_null<float>(key_bias),
      .begin_scale = data_or_null<float>(begin_scale),
  };
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_attention(
    const Tensor& any_query, const Tensor& any_key, const Tensor& any_value,
    const std::optional<Tensor>& any_key_bias, const std::optional<Tensor>& any_begin_scale,
    const std::optional<Tensor>& any_token, double scale, bool statistics, bool logsumexp) {
  check_attention(kOp, any_query, any_key, any_value, any_key_bias, any_begin_scale);
  const Tensor query = walkable(any_query), key = walkable(any_key), value = walkable(any_value);
  const auto key_bias = contiguous_as(any_key_bias, ScalarType::Float);
  const auto begin_scale = contiguous_as(any_begin_scale, ScalarType::Float);
  const auto token = contiguous_as(any_token, ScalarType::Long);
  check_token(kOp, token, query.size(0), key.size(2));
  const Logits logits = logits_of(query, key, key_bias, begin_scale, scale);

  const Tensor output = empty_heads_last(query);
  const Tensor mass = empty_float32(query, statistics, logits.keys);
  const Tensor entropy = empty_float32(query, statistics, logits.keys);
  const Tensor token_map = empty_float32(query, token.has_value(), logits.queries);
  const Tensor lse = empty_float32(query, logsumexp, logits.queries);

  const BlockSums parts(kOp, logits, statistics);
  const Forward call = {
      .logits = logits,
      .value = rows_of(value),
      .token = data_or_null<int64_t>(token),
      .output = mutable_rows_of(output),
      .sums = parts.sums(),
      .token_map = floats_or_null(token_map, token.has_value()),
      .logsumexp = floats_or_null(lse, logsumexp),
  };
  const Kernels& chosen = kernels();
  run_in_parallel(kOp, logits, kForwardBlock, chosen.forward_scratch(call),
                  [&](int64_t begin, int64_t end, float* scratch) {
                    chosen.forward(call, begin, end, scratch);
                  });
  parts.fold_into(floats_or_null(mass, statistics), floats_or_null(entropy, statistics));
  return {output, mass, entropy, token_map, lse};
}

std::tuple<Tensor, Tensor, Tensor> cross_attention_backward(
    const Tensor& any_grad_output, const Tensor& any_query, const Tensor& any_key,
    const Tensor& any_value, const std::optional<Tensor>& any_key_bias,
    const std::optional<Tensor>& any_begin_scale, const Tensor& /*output*/,
    const Tensor& any_logsumexp, double scale) {
  check_attention(kOp, any_query, any_key, any_value, any_key_bias, any_begin_scale);
  check_like(kOp, "grad_output", any_grad_output, any_query, any_query.size(2));
  check(kOp, "logsumexp", any_logsumexp, {any_query.size(0), any_query.size(1), any_query.size(2)});
  STD_TORCH_CHECK(any_logsumexp.scalar_type() == ScalarType::Float, kOp,
                  ": logsumexp: got another dtype than float32");
  const Tensor query = walkable(any_query), key = walkable(any_key), value = walkable(any_value);
  const Tensor grad_output = walkable(any_grad_output);
  const Tensor logsumexp = torch::stable::contiguous(any_logsumexp);
  const auto key_bias = contiguous_as(any_key_bias, ScalarType::Float);
  const auto begin_scale = contiguous_as(any_begin_scale, ScalarType::Float);
  const Logits logits = logits_of(query, key, key_bias, begin_scale, scale);
  const int64_t blocks = blocks_of(logits.queries, kBackwardBlock);
  const int64_t heads = logits.batch * logits.heads;
  const int64_t size = logits.keys * logits.dim;

  const Tensor grad_query = empty_heads_last(query);
  const FloatBuffer parts = allocate(2 * heads * blocks * size);
  STD_TORCH_CHECK(parts, kOp, ": got no memory for the blocks' gradients");
  const Backward call = {
      .logits = logits,
      .value = rows_of(value),
      .grad_output = rows_of(grad_output),
      .logsumexp = static_cast<const float*>(logsumexp.const_data_ptr()),
      .grad_query = mutable_rows_of(grad_query),
      .grad_key = parts.get(),
      .grad_value = parts.get() + heads * blocks * size,
  };
  const Kernels& chosen = kernels();
  run_in_parallel(kOp, logits, kBackwardBlock, chosen.backward_scratch(call),
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

}  // namespace
}  // namespace memattn::cpu

STABLE_TORCH_LIBRARY_IMPL(memattn, CPU, library) {
  library.impl("cross_attention_cpu", TORCH_BOX(&memattn::cpu::cross_attention));
  library.impl("cross_attention_cpu_backward", TORCH_BOX(&memattn::cpu::cross_attention_backward));
}

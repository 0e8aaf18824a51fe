// The op memattn::column_statistics_cpu: arguments in, tensors out, work to threads. Its schema,
// fake and autograd are registered in Python (memattn/ops/torch_library/column_statistics.py).

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

constexpr char kOp[] = "column_statistics_cpu";

std::tuple<Tensor, Tensor, Tensor> column_statistics(const Tensor& any_query,
                                                     const Tensor& any_key_columns,
                                                     const std::optional<Tensor>& any_logsumexp,
                                                     const std::optional<Tensor>& any_key_bias,
                                                     const std::optional<Tensor>& any_token,
                                                     double scale) {
  check_key(kOp, "key_columns", any_key_columns, any_query);
  const int64_t batch = any_query.size(0), columns = any_key_columns.size(2);
  check(kOp, "logsumexp", any_logsumexp, {batch, any_query.size(1), any_query.size(2)});
  check(kOp, "key_bias", any_key_bias, {batch, columns});
  const Tensor query = walkable(any_query), key_columns = walkable(any_key_columns);
  const auto logsumexp = contiguous_as(any_logsumexp, ScalarType::Float);
  const auto key_bias = contiguous_as(any_key_bias, ScalarType::Float);
  const auto token = contiguous_as(any_token, ScalarType::Long);
  check_token(kOp, token, batch, columns);
  const Logits logits = {
      .dtype = dtype_of(kOp, query),
      .batch = batch,
      .heads = query.size(1),
      .queries = query.size(2),
      .keys = columns,
      .dim = query.size(3),
      .scale = static_cast<float>(scale),
      .query = rows_of(query),
      .key = rows_of(key_columns),
      .key_bias = data_or_null<float>(key_bias),
      .begin_scale = nullptr,
  };

  const Tensor mass = empty_float32(query, true, columns);
  const Tensor entropy = empty_float32(query, true, columns);
  const Tensor token_map = empty_float32(query, token.has_value(), logits.queries);

  const BlockSums parts(kOp, logits, true);
  const ColumnStatistics call = {
      .logits = logits,
      .logsumexp = data_or_null<float>(logsumexp),
      .token = data_or_null<int64_t>(token),
      .sums = parts.sums(),
      .token_map = floats_or_null(token_map, token.has_value()),
  };
  const Kernels& chosen = kernels();
  run_in_parallel(kOp, logits, kForwardBlock, chosen.column_statistics_scratch(call),
                  [&](int64_t begin, int64_t end, float* scratch) {
                    chosen.column_statistics(call, begin, end, scratch);
                  });
  parts.fold_into(floats_or_null(mass, true), floats_or_null(entropy, true));
  return {mass, entropy, token_map};
}

}  // namespace
}  // namespace memattn::cpu

STABLE_TORCH_LIBRARY_IMPL(memattn, CPU, library) {
  library.impl("column_statistics_cpu", TORCH_BOX(&memattn::cpu::column_statistics));
}

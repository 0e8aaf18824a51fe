// The op: tensors in, tensors out. Who registers it gives it a name and a schema.
#pragma once

#include <optional>
#include <tuple>

#include "checks.h"

namespace memattn::cuda {

// Output [B, H, Lq, D] in the layout (B, Lq, H, D), mass and entropy [B, H, Lk], map and logsumexp
// [B, H, Lq]; what was not asked for is [0].
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> cross_attention(
    const Tensor& query, const Tensor& key, const Tensor& value,
    const std::optional<Tensor>& key_bias, const std::optional<Tensor>& begin_scale,
    const std::optional<Tensor>& token, double scale, bool statistics, bool logsumexp);

}  // namespace memattn::cuda

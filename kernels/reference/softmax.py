"""The softmax of the reference, and the pieces and the dtype that it is computed in."""

import torch
from torch import Tensor

# Queries are taken in blocks of a fixed size, and samples one by one: the shapes of the matrix
# products, and with them the rounding, are then the same for every batch a sample is part of, and
# the probabilities of 65 536 queries are never in memory at once.
QUERY_BLOCK = 1024


def softmax(
    query: Tensor, key: Tensor, bias: Tensor | None, begin_scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Probabilities p [H, Lq, Lk], -ln p (0 where a key is removed) and logsumexp [H, Lq].

    The scalar `begin_scale` multiplies the first key's logits.
    """
    scores = query @ key.transpose(1, 2)
    if begin_scale is not None:
        scores = torch.cat([scores[:, :, :1] * begin_scale, scores[:, :, 1:]], dim=2)
    if bias is not None:
        scores = scores + bias
    # The result does not depend on the shift, so its gradient is not part of the result's.
    maximum = scores.detach().amax(dim=2, keepdim=True)
    if bias is not None:  # a row without keys would give -inf - -inf = nan
        maximum = maximum.masked_fill(maximum == -torch.inf, 0.0)
    shifted = scores - maximum
    weights = shifted.exp()
    total = weights.sum(dim=2, keepdim=True)
    if bias is not None:
        total = total.masked_fill(total == 0.0, 1.0)
    log_total = total.log()
    # From the shifted scores: logsumexp - score loses digits where the logits are large.
    surprise = log_total - shifted
    if bias is not None:  # 0 * inf would be nan
        surprise = surprise.masked_fill(shifted == -torch.inf, 0.0)
    return weights / total, surprise, (maximum + log_total).squeeze(2)


def accumulation_dtype(query: Tensor) -> torch.dtype:
    """What a query's products and sums are computed in, and the dtype of its statistics."""
    return torch.float64 if query.dtype == torch.float64 else torch.float32

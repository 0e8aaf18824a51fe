"""Statistics of some key columns in eager torch: the meaning every other backend matches."""

import torch
from torch import Tensor

from memattn.kernels.reference.softmax import QUERY_BLOCK, accumulation_dtype, softmax
from memattn.types import ColumnStatisticsRequest, ColumnStatisticsResult


def why_not(request: ColumnStatisticsRequest) -> str | None:
    """Say why this backend cannot run a checked request: it always can."""
    return None


def forward(request: ColumnStatisticsRequest) -> ColumnStatisticsResult:
    """Run the request, sample by sample."""
    # Autocast would round the float32 products below.
    with torch.autocast(request.query.device.type, enabled=False):
        samples = [_one_sample(request, index) for index in range(request.query.shape[0])]
    if not samples:
        return _empty_batch(request)
    mass, entropy, token_map = zip(*samples, strict=True)
    return ColumnStatisticsResult(
        torch.stack(mass),
        torch.stack(entropy),
        torch.stack(token_map) if request.token is not None else None,
    )


def _one_sample(request: ColumnStatisticsRequest, index: int) -> ColumnStatisticsResult:
    """Sample `index` of the request; the tensors of its result have no batch axis."""
    dtype = accumulation_dtype(request.query)
    key = request.key_columns[index].to(dtype)  # [H, Lc, D]
    bias = None if request.key_bias is None else request.key_bias[index].to(dtype)  # [Lc]
    token = None if request.token is None else request.token[index : index + 1]
    mass, entropy, token_map = [], [], []
    for first in range(0, request.query.shape[2], QUERY_BLOCK):
        rows = slice(first, first + QUERY_BLOCK)
        query = request.query[index, :, rows].to(dtype) * request.scale  # [H, block, D]
        if request.logsumexp is None:
            probs, surprise, _ = softmax(query, key, bias)
        else:
            probs, surprise = _columns(query, key, bias, request.logsumexp[index, :, rows])
        mass.append(probs.sum(dim=1))
        entropy.append((probs * surprise).sum(dim=1))
        if token is not None:
            token_map.append(probs.index_select(2, token).squeeze(2))
    return ColumnStatisticsResult(
        torch.stack(mass).sum(dim=0),
        torch.stack(entropy).sum(dim=0),
        torch.cat(token_map, dim=1) if token is not None else None,
    )


def _columns(
    query: Tensor, key: Tensor, bias: Tensor | None, logsumexp: Tensor
) -> tuple[Tensor, Tensor]:
    """Probabilities exp(s - logsumexp) [H, Lq, Lc], and -ln of them (0 where that is infinite)."""
    scores = query @ key.transpose(1, 2)
    if bias is not None:
        scores = scores + bias
    normaliser = logsumexp.to(scores.dtype)[:, :, None]  # [H, Lq, 1]
    # Infinite, of either sign, in a row without keys.
    shifted = (scores - normaliser).masked_fill(normaliser.isinf(), -torch.inf)
    # 0 * inf would be nan.
    return shifted.exp(), -shifted.masked_fill(shifted == -torch.inf, 0.0)


def _empty_batch(request: ColumnStatisticsRequest) -> ColumnStatisticsResult:
    """The result for a batch of no samples."""
    _, heads, queries, _ = request.query.shape
    columns = request.key_columns.shape[2]
    empty = request.query.new_empty((0,), dtype=accumulation_dtype(request.query))
    return ColumnStatisticsResult(
        empty.reshape(0, heads, columns),
        empty.reshape(0, heads, columns),
        empty.reshape(0, heads, queries) if request.token is not None else None,
    )

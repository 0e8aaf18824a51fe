"""`memattn.column_statistics`: where attention went that another function computed."""

from torch import Tensor

from memattn.ops import dispatch
from memattn.ops.contract import column_statistics_request
from memattn.ops.torch_library.column_statistics import register
from memattn.types import Backend, ColumnStatisticsResult

OPERATION = dispatch.Operation("column_statistics", register)


def column_statistics(
    query: Tensor,
    key_columns: Tensor,
    logsumexp: Tensor | None = None,
    *,
    key_bias: Tensor | None = None,
    token: Tensor | None = None,
    scale: float | None = None,
    backend: Backend = "auto",
) -> ColumnStatisticsResult:
    """The attention that a few columns of a longer key axis received, and its entropy.

    For joint attention, where image and text tokens share one key axis: after the fastest attention
    at hand has returned its rows' logsumexp, the text's columns alone are computed again. With
    logits s = scale * query @ key_columns^T + key_bias and p = exp(s - logsumexp): token_mass =
    sum_q p and token_entropy = sum_q -p ln p, where -p ln p is 0 at p = 0. Without logsumexp,
    p = softmax(s), as if there were no other keys. Sums are kept in float32 whatever the inputs,
    and a sample's numbers do not depend on the batch it is part of.

    Args:
        query: [B, H, Lq, D], any strides; float32, bfloat16, float16, or float64 where the backend
            takes it.
        key_columns: The keys that are asked about [B, H, Lc, D].
        logsumexp: Natural log of each row's softmax denominator over its whole key axis [B, H, Lq],
            any floating dtype. A row where it is infinite, as libraries mark a row without keys,
            gives zeros. None to normalise over the given columns alone.
        key_bias: Added to the scaled logits [B, Lc]; -inf removes a column. A row whose columns are
            all removed gives zeros.
        token: Also return this column as a map [B], int64.
        scale: Multiplies the logits, the same as in the attention; D ** -0.5 by default.
        backend: "auto" takes the first backend that can run this call; a named one runs or raises.

    Returns:
        Token mass and token entropy [B, H, Lc] in nats, and the map [B, H, Lq] or None. Only
        `reference` gives them a gradient.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If an argument has the wrong shape, device or value.
        UnsupportedBackendError: If the named backend cannot run this call.

    Source:
        Joint attention: Esser et al. 2024, arXiv:2403.03206, section 4. Probabilities from
        logsumexp: Dao 2023, arXiv:2307.08691, algorithm 2.

    Example:
        >>> import torch
        >>> query, key = torch.randn(2, 1, 4, 50, 8)
        >>> logsumexp = (8**-0.5 * query @ key.mT).logsumexp(3)
        >>> column_statistics(query, key[:, :, :7], logsumexp).token_mass.shape
        torch.Size([1, 4, 7])
    """
    request = column_statistics_request(
        query, key_columns, logsumexp, key_bias=key_bias, token=token, scale=scale
    )
    return dispatch.run(OPERATION, request, backend)

"""Statistics of key columns in Triton: which calls it takes, and where normalisers come from.

Importing this file implements the op that dispatch has defined.
"""

import torch
from torch import Tensor

from memattn.kernels.triton.columns import Rows, sum_columns
from memattn.kernels.triton.launch import (
    Form,
    has_tensor_memory,
    readable,
    refusal,
    without_gaps,
)
from memattn.kernels.triton.long_keys import look
from memattn.kernels.triton.tiles import column_tiles
from memattn.types import ColumnStatisticsRequest

_MOST_COLUMNS = 1024


def why_not(request: ColumnStatisticsRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    columns = request.key_columns.shape[2]
    if columns > _MOST_COLUMNS:
        return f"it takes up to {_MOST_COLUMNS} columns, got {columns}"
    return refusal(request.query)


def _forward(
    query: Tensor,
    key_columns: Tensor,
    logsumexp: Tensor | None,
    key_bias: Tensor | None,
    token: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    query, key_columns = readable(query), readable(key_columns)
    key_bias, token = without_gaps(key_bias), without_gaps(token, torch.int64)
    if logsumexp is None:
        rows = _over_columns(query, key_columns, key_bias, scale)
    else:
        # A joint layer's is cut from all its rows: rows side by side are all that is asked.
        normaliser = logsumexp.float()
        rows = Rows(normaliser if normaliser.stride(2) == 1 else normaliser.contiguous(), None)
    return sum_columns(query, key_columns, rows, key_bias, None, token, scale)


def _over_columns(
    query: Tensor, key_columns: Tensor, key_bias: Tensor | None, scale: float
) -> Rows:
    """The rows' normalisers if there are no other keys."""
    rows = Rows.empty(query)
    form = Form.of(query, key_columns, key_bias=key_bias, begin_scale=None)
    tiles = column_tiles(query.shape[3], query.dtype, tensor_memory=has_tensor_memory(query.device))
    look(form, tiles, query, key_columns, None, key_bias, None, scale, rows=rows)
    return rows


torch.library.impl("memattn::column_statistics_triton", "default", _forward)

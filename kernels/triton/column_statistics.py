"""Statistics of key columns in Triton: which calls it takes, and their launches.

Importing this file implements the op that dispatch has defined.
"""

import functools

import torch
from torch import Tensor

from memattn.kernels.triton.fold import fold
from memattn.kernels.triton.jit.columns import column_statistics_kernel, row_normaliser_kernel
from memattn.kernels.triton.launch import (
    LOG2_E,
    Launch,
    constants,
    divided_up,
    precision_of,
    readable,
    refusal,
    running_on,
    stride_unit,
    strides,
    without_gaps,
)
from memattn.kernels.triton.tiles import column_tiles
from memattn.types import ColumnStatisticsRequest

_MOST_COLUMNS = 1024


def why_not(request: ColumnStatisticsRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    columns = request.key_columns.shape[2]
    if columns > _MOST_COLUMNS:
        return f"it takes up to {_MOST_COLUMNS} columns, got {columns}"
    return refusal(request.query)


@functools.cache
def launches(
    dtype: torch.dtype,
    dim: int,
    columns: int,
    *,
    unit: int,
    precision: str,
    has_bias: bool,
    has_token: bool,
    is_logsumexp: bool,
) -> tuple[Launch, Launch]:
    """The kernels for the rows' normalisers and for the columns, and their settings."""
    tiles = column_tiles(dim, dtype)
    shared = constants(tiles, dim, columns, unit=unit, precision=precision, has_bias=has_bias)
    own = {"TILES": tiles.tiles, "HAS_TOKEN": has_token, "IS_LOGSUMEXP": is_logsumexp}
    return (
        Launch(row_normaliser_kernel, shared, tiles.warps, tiles.stages),
        Launch(column_statistics_kernel, shared | own, tiles.warps, tiles.stages),
    )


def _forward(
    query: Tensor,
    key_columns: Tensor,
    logsumexp: Tensor | None,
    key_bias: Tensor | None,
    token: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, dim = query.shape
    columns = key_columns.shape[2]
    tiles = column_tiles(dim, query.dtype)
    row_tiles = divided_up(queries, tiles.block_q)
    chunks = divided_up(row_tiles, tiles.tiles)

    def float32(*shape: int) -> Tensor:
        return query.new_empty(shape, dtype=torch.float32)

    mass = float32(batch * heads, chunks, columns)
    entropy = float32(batch * heads, chunks, columns)
    token_map = float32(*((0,) if token is None else (batch, heads, queries)))
    if batch:
        query, key_columns = readable(query), readable(key_columns)
        key_bias = without_gaps(key_bias, torch.float32)
        unit = stride_unit(query, key_columns)
        both_strides = (*strides(query, unit), *strides(key_columns, unit))
        normalise, sum_columns = launches(
            query.dtype,
            dim,
            columns,
            unit=unit,
            precision=precision_of(query),
            has_bias=key_bias is not None,
            has_token=token is not None,
            is_logsumexp=logsumexp is not None,
        )
        with running_on(query):
            total = None
            if logsumexp is not None:
                # A joint layer's is cut from all its rows: rows side by side are all that is asked.
                normaliser = logsumexp.float()
                if normaliser.stride(2) != 1:
                    normaliser = normaliser.contiguous()
            else:
                normaliser, total = float32(batch, heads, queries), float32(batch, heads, queries)
                normalise(
                    (batch * heads * row_tiles,),
                    query, key_columns, key_bias, normaliser, total, *both_strides,
                    heads, queries, columns, row_tiles, scale * LOG2_E,
                )  # fmt: skip
            sum_columns(
                (batch * heads * chunks, divided_up(columns, tiles.block_k)),
                query, key_columns, normaliser, total, key_bias, without_gaps(token, torch.int64),
                mass, entropy, token_map, *both_strides, *normaliser.stride()[:2],
                heads, queries, columns, chunks, scale * LOG2_E,
            )  # fmt: skip
            mass, entropy = fold(mass, entropy)
    shape = (batch, heads, columns)
    return mass.reshape(shape), entropy.reshape(shape), token_map


torch.library.impl("memattn::column_statistics_triton", "default", _forward)

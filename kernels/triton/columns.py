"""What key columns get of rows that have their normalisers, summed over queries."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from memattn.kernels.triton.fold import fold
from memattn.kernels.triton.jit.columns import column_statistics_kernel
from memattn.kernels.triton.launch import (
    Form,
    Launch,
    divided_up,
    has_tensor_memory,
    running_on,
    strides,
)
from memattn.kernels.triton.tiles import Tiles, column_tiles, tiles_per_program


class Rows(NamedTuple):
    """What makes probabilities of a row's logits.

    Attributes:
        normaliser: logsumexp in nats, or the largest logit in the kernel's unit [B, H, Lq]; rows
            lie side by side.
        total: Beside a largest logit, the sum of exponentials below it, in order [B, H, Lq].
    """

    normaliser: Tensor
    total: Tensor | None

    @classmethod
    def empty(cls, query: Tensor) -> "Rows":
        """Where largest logits and totals can be written."""
        shape = query.shape[:3]
        return cls(*(query.new_empty(shape, dtype=torch.float32) for _ in range(2)))


@functools.cache
def column_launch(form: Form, tiles: Tiles, *, has_token: bool, is_logsumexp: bool) -> Launch:
    """The kernel for a call, and what it is compiled with."""
    own = form.constants(tiles, HAS_TOKEN=has_token, IS_LOGSUMEXP=is_logsumexp)
    return Launch(column_statistics_kernel, own, tiles.warps, tiles.stages)


def sum_columns(
    query: Tensor,
    key_columns: Tensor,
    rows: Rows,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    token: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mass and entropy [B, H, columns], and the token's map [B, H, Lq] or an empty tensor.

    Operands are as kernels read them.
    """
    batch, heads, queries, dim = query.shape
    columns = key_columns.shape[2]
    form = Form.of(query, key_columns, key_bias=key_bias, begin_scale=begin_scale)
    sizes = column_tiles(dim, query.dtype, tensor_memory=has_tensor_memory(query.device))
    is_logsumexp = rows.total is None
    launch = column_launch(form, sizes, has_token=token is not None, is_logsumexp=is_logsumexp)
    tiles = tiles_per_program(sizes, queries)
    chunks = divided_up(queries, tiles * sizes.block_q)
    mass, entropy = (
        query.new_empty((batch, heads, chunks, columns), dtype=torch.float32) for _ in range(2)
    )
    map_shape = (0,) if token is None else (batch, heads, queries)
    token_map = query.new_empty(map_shape, dtype=torch.float32)
    with running_on(query):
        launch(
            (batch * heads * chunks * divided_up(columns, sizes.block_k),),
            query, key_columns, rows.normaliser, rows.total, key_bias, begin_scale, token,
            mass, entropy, token_map,
            *strides(form.stride_unit, query, key_columns), *rows.normaliser.stride()[:2],
            heads, queries, columns, chunks, tiles, scale * form.logit_unit,
        )  # fmt: skip
        mass, entropy = fold(mass, entropy)
    return mass, entropy, token_map

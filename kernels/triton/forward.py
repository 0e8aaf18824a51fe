"""Forward of cross-attention: keys that are one tile in one look, and in two those that are not."""

import functools

import torch
from torch import Tensor

from memattn.kernels.triton.columns import Rows, sum_columns
from memattn.kernels.triton.fold import fold
from memattn.kernels.triton.jit.short_keys import cross_attention_short_kernel
from memattn.kernels.triton.launch import (
    Form,
    Launch,
    divided_up,
    has_tensor_memory,
    readable,
    running_on,
    strides,
    without_gaps,
)
from memattn.kernels.triton.long_keys import look
from memattn.kernels.triton.tiles import Tiles, forward_tiles, tiles_per_program


@functools.cache
def short_launch(
    form: Form, tiles: Tiles, *, has_token: bool, statistics: bool, logsumexp: bool
) -> Launch:
    """The kernel for keys that are one tile, and what it is compiled with."""
    own = form.constants(tiles, HAS_TOKEN=has_token, STATISTICS=statistics, LOGSUMEXP=logsumexp)
    return Launch(cross_attention_short_kernel, own, tiles.warps, tiles.stages)


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    token: Tensor | None,
    scale: float,
    statistics: bool,
    logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Output, mass, entropy, the token's map and logsumexp; empty where they are not asked for."""
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    query, key, value = readable(query), readable(key), readable(value)
    key_bias, begin_scale = without_gaps(key_bias), without_gaps(begin_scale)
    token = without_gaps(token, torch.int64)
    form = Form.of(query, key, value, key_bias=key_bias, begin_scale=begin_scale)
    sizes = forward_tiles(
        keys, dim, query.dtype, biased=form.is_biased, tensor_memory=has_tensor_memory(query.device)
    )

    def float32(wanted: bool, *shape: int) -> Tensor:
        return query.new_empty(shape if wanted else (0,), dtype=torch.float32)

    output = query.new_empty((batch, queries, heads, dim)).transpose(1, 2)
    row_logsumexp = float32(logsumexp, batch, heads, queries)
    if sizes.block_k:
        rows = Rows.empty(query) if statistics or token is not None else None
        look(
            form, sizes, query, key, value, key_bias, begin_scale, scale,
            output=output, rows=rows, logsumexp=row_logsumexp if logsumexp else None,
        )  # fmt: skip
        mass, entropy, token_map = (float32(False) for _ in range(3))
        if rows is not None:
            *sums, token_map = sum_columns(query, key, rows, key_bias, begin_scale, token, scale)
            if statistics:
                mass, entropy = sums
        return output, mass, entropy, token_map, row_logsumexp

    tiles = tiles_per_program(sizes, queries)
    chunks = divided_up(queries, tiles * sizes.block_q)
    mass, entropy = (float32(statistics, batch, heads, chunks, keys) for _ in range(2))
    token_map = float32(token is not None, batch, heads, queries)
    launch = short_launch(
        form, sizes, has_token=token is not None, statistics=statistics, logsumexp=logsumexp
    )
    with running_on(query):
        launch(
            (batch * heads * chunks,),
            query, key, value, key_bias, begin_scale, token,
            output, mass, entropy, token_map, row_logsumexp,
            *strides(form.stride_unit, query, key, value),
            heads, queries, keys, chunks, tiles, scale * form.logit_unit,
        )  # fmt: skip
        if statistics:
            mass, entropy = fold(mass, entropy)
    return output, mass, entropy, token_map, row_logsumexp

"""Cross-attention with token statistics in Triton: which calls it takes, and their launches.

Importing this file implements the ops that dispatch has defined.
"""

import functools

import torch
from torch import Tensor

from memattn.kernels.triton.fold import fold
from memattn.kernels.triton.jit.gradients import key_gradient_kernel, query_gradient_kernel
from memattn.kernels.triton.jit.long_keys import cross_attention_long_kernel
from memattn.kernels.triton.jit.short_keys import cross_attention_short_kernel
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
from memattn.kernels.triton.tiles import backward_tiles, forward_tiles, parts
from memattn.types import CrossAttentionRequest

_MOST_KEYS = 1024


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    keys = request.key.shape[2]
    if keys > _MOST_KEYS:
        return f"it takes up to {_MOST_KEYS} keys, got {keys}"
    return refusal(request.query)


def beats_torch(request: CrossAttentionRequest) -> bool:
    """Whether attention without statistics is faster here than torch's own.

    That has not been measured on any GPU; until then torch's own is taken.
    """
    return False


@functools.cache
def forward_launch(
    dtype: torch.dtype,
    dim: int,
    keys: int,
    *,
    unit: int,
    precision: str,
    has_bias: bool,
    has_begin: bool,
    has_token: bool,
    statistics: bool,
    logsumexp: bool,
) -> Launch:
    """The kernel for a call, and what it is compiled with."""
    tiles = forward_tiles(keys, dim, dtype, biased=has_bias or has_begin)
    shared = constants(tiles, dim, keys, unit=unit, precision=precision, has_bias=has_bias)
    shared |= {
        "HAS_BEGIN": has_begin,
        "HAS_TOKEN": has_token,
        "STATISTICS": statistics,
        "LOGSUMEXP": logsumexp,
    }
    if tiles.block_k:
        return Launch(cross_attention_long_kernel, shared, tiles.warps, tiles.stages)
    del shared["ALL_KEYS"], shared["BLOCK_K"]  # all keys are one tile, of one or two parts
    keys_0, keys_1 = parts(keys)
    shared |= {"KEYS_0": keys_0, "KEYS_1": keys_1, "TILES": tiles.tiles}
    return Launch(cross_attention_short_kernel, shared, tiles.warps, tiles.stages)


@functools.cache
def backward_launches(
    dtype: torch.dtype,
    dim: int,
    keys: int,
    *,
    unit: int,
    precision: str,
    has_bias: bool,
    has_begin: bool,
) -> tuple[Launch, Launch]:
    """The kernels for gradients by queries and by keys, and what they are compiled with."""
    tiles = backward_tiles(dim, dtype)
    shared = constants(tiles, dim, keys, unit=unit, precision=precision, has_bias=has_bias)
    shared["HAS_BEGIN"] = has_begin
    return (
        Launch(query_gradient_kernel, shared, tiles.warps, tiles.stages),
        Launch(key_gradient_kernel, shared | {"TILES": tiles.tiles}, tiles.warps, tiles.stages),
    )


def _forward(
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
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    query, key, value = readable(query), readable(key), readable(value)
    terms = _terms(key_bias, begin_scale)
    unit = stride_unit(query, key, value)
    launch = forward_launch(
        query.dtype,
        dim,
        keys,
        unit=unit,
        precision=precision_of(query),
        has_bias=key_bias is not None,
        has_begin=begin_scale is not None,
        has_token=token is not None,
        statistics=statistics,
        logsumexp=logsumexp,
    )
    chunks = divided_up(queries, launch.queries)

    def float32(wanted: bool, *shape: int) -> Tensor:
        return query.new_empty(shape if wanted else (0,), dtype=torch.float32)

    output = query.new_empty((batch, queries, heads, dim)).transpose(1, 2)
    mass = float32(statistics, batch * heads, chunks, keys)
    entropy = float32(statistics, batch * heads, chunks, keys)
    token_map = float32(token is not None, batch, heads, queries)
    row_logsumexp = float32(logsumexp, batch, heads, queries)
    if batch:
        with running_on(query):
            launch(
                (batch * heads * chunks,),
                query, key, value, *terms, without_gaps(token, torch.int64),
                output, mass, entropy, token_map, row_logsumexp,
                *strides(query, unit), *strides(key, unit), *strides(value, unit),
                heads, queries, keys, chunks, scale * LOG2_E,
            )  # fmt: skip
            if statistics:
                mass, entropy = fold(mass, entropy)
    if statistics:
        mass, entropy = (sums.reshape(batch, heads, keys) for sums in (mass, entropy))
    return output, mass, entropy, token_map, row_logsumexp


def _backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    output: Tensor,
    logsumexp: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    logsumexp = logsumexp.contiguous()
    tiles = backward_tiles(dim, query.dtype)
    row_tiles = divided_up(queries, tiles.block_q)
    chunks = divided_up(row_tiles, tiles.tiles)
    grad_query, grad_key, grad_value = (
        query.new_empty((batch, length, heads, dim)).transpose(1, 2)
        for length in (queries, keys, keys)
    )
    if not batch:
        return grad_query, grad_key, grad_value
    operands = [readable(tensor) for tensor in (grad_output, query, key, value)]
    unit = stride_unit(*operands)
    terms = _terms(key_bias, begin_scale)
    all_strides = [stride for tensor in operands for stride in strides(tensor, unit)]
    by_queries, by_keys = backward_launches(
        query.dtype,
        dim,
        keys,
        unit=unit,
        precision=precision_of(query),
        has_bias=key_bias is not None,
        has_begin=begin_scale is not None,
    )
    inverse, delta = torch.empty_like(logsumexp), torch.empty_like(logsumexp)
    partials = [
        query.new_empty((batch * heads, chunks, keys * dim), dtype=torch.float32) for _ in range(2)
    ]
    with running_on(query):
        by_queries(
            (batch * heads * row_tiles,),
            *operands, *terms, logsumexp, grad_query, inverse, delta, *all_strides,
            heads, queries, keys, row_tiles, scale * LOG2_E,
        )  # fmt: skip
        by_keys(
            (batch * heads * chunks, divided_up(keys, tiles.block_k)),
            *operands, *terms, logsumexp, inverse, delta, *partials, *all_strides,
            heads, queries, keys, chunks, scale * LOG2_E,
        )  # fmt: skip
        sums = fold(partials[0], partials[1])
    for gradient, summed in zip((grad_key, grad_value), sums, strict=True):
        gradient.copy_(summed.view(batch, heads, keys, dim))
    return grad_query, grad_key, grad_value


def _terms(
    key_bias: Tensor | None, begin_scale: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """What the logits are made with, as the kernels read it."""
    return without_gaps(key_bias, torch.float32), without_gaps(begin_scale, torch.float32)


torch.library.impl("memattn::cross_attention_triton", "default", _forward)
torch.library.impl("memattn::cross_attention_triton_backward", "default", _backward)

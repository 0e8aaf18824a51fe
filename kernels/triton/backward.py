"""Backward of cross-attention: gradients by queries and by keys, from the rows' logsumexp."""

import functools

import torch
from torch import Tensor

from memattn.kernels.triton.fold import fold_into
from memattn.kernels.triton.jit.gradients import key_gradient_kernel, query_gradient_kernel
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
from memattn.kernels.triton.tiles import Tiles, backward_tiles, tiles_per_program


@functools.cache
def backward_launches(form: Form, tiles: Tiles) -> tuple[Launch, Launch]:
    """The kernels for gradients by queries and by keys, and what they are compiled with."""
    shared = form.constants(tiles)
    return (
        Launch(query_gradient_kernel, shared, tiles.warps, tiles.stages),
        Launch(key_gradient_kernel, shared, tiles.warps, tiles.stages),
    )


def backward(
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
    """Gradients of query, key and value; the output is not needed."""
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    operands = [readable(tensor) for tensor in (grad_output, query, key, value)]
    terms = without_gaps(key_bias), without_gaps(begin_scale)
    form = Form.of(*operands[1:], operands[0], key_bias=key_bias, begin_scale=begin_scale)
    sizes = backward_tiles(dim, query.dtype, tensor_memory=has_tensor_memory(query.device))
    by_queries, by_keys = backward_launches(form, sizes)
    tiles = tiles_per_program(sizes, queries)
    row_tiles = divided_up(queries, sizes.block_q)
    chunks = divided_up(row_tiles, tiles)
    all_strides = strides(form.stride_unit, *operands)
    scale_in_unit = scale * form.logit_unit

    logsumexp = logsumexp.contiguous()
    inverse, delta = torch.empty_like(logsumexp), torch.empty_like(logsumexp)
    grad_query, grad_key, grad_value = (
        query.new_empty((batch, length, heads, dim)).transpose(1, 2)
        for length in (queries, keys, keys)
    )
    partials = [
        query.new_empty((batch, heads, chunks, keys * dim), dtype=torch.float32) for _ in range(2)
    ]
    with running_on(query):
        by_queries(
            (batch * heads * row_tiles,),
            *operands, *terms, logsumexp, grad_query, inverse, delta, *all_strides,
            heads, queries, keys, row_tiles, scale_in_unit,
        )  # fmt: skip
        by_keys(
            (batch * heads * chunks * divided_up(keys, sizes.block_k),),
            *operands, *terms, logsumexp, inverse, delta, *partials, *all_strides,
            heads, queries, keys, chunks, tiles, scale_in_unit,
        )  # fmt: skip
        fold_into(grad_key, grad_value, *partials)
    return grad_query, grad_key, grad_value

"""One look at keys in several tiles: for the output, for the rows' normalisers, or for both."""

import functools

from torch import Tensor

from memattn.kernels.triton.columns import Rows
from memattn.kernels.triton.jit.long_keys import cross_attention_long_kernel
from memattn.kernels.triton.launch import Form, Launch, divided_up, running_on, strides
from memattn.kernels.triton.tiles import Tiles


@functools.cache
def long_launch(
    form: Form, tiles: Tiles, *, output: bool, normalisers: bool, logsumexp: bool
) -> Launch:
    """The kernel for a call, and what it is compiled with."""
    own = form.constants(tiles, OUTPUT=output, NORMALISERS=normalisers, LOGSUMEXP=logsumexp)
    return Launch(cross_attention_long_kernel, own, tiles.warps, tiles.stages)


def look(
    form: Form,
    tiles: Tiles,
    query: Tensor,
    key: Tensor,
    value: Tensor | None,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    scale: float,
    *,
    output: Tensor | None = None,
    rows: Rows | None = None,
    logsumexp: Tensor | None = None,
) -> None:
    """Write output [B, H, Lq, D], the rows' normalisers, logsumexp [B, H, Lq]: what is not None.

    Only the output needs a value.
    """
    batch, heads, queries, _ = query.shape
    launch = long_launch(
        form,
        tiles,
        output=output is not None,
        normalisers=rows is not None,
        logsumexp=logsumexp is not None,
    )
    row_max, total = rows or (None, None)
    chunks = divided_up(queries, tiles.block_q)
    with running_on(query):
        launch(
            (batch * heads * chunks,),
            query, key, value, key_bias, begin_scale, output, row_max, total, logsumexp,
            *strides(form.stride_unit, query, key, key if value is None else value),
            heads, queries, key.shape[2], chunks, scale * form.logit_unit,
        )  # fmt: skip

"""Forward for keys that do not fit one tile: output and normalisers, as flash attention does.

The sums over queries are a second look, that of `column_statistics_kernel`.
"""

import triton
import triton.language as tl

from memattn.kernels.triton.jit.primitives import (
    UNALIGNED,
    UNSPECIALISED,
    largest_bias,
    load_keys,
    load_queries,
    logarithm,
    logit_terms,
    logits,
    product,
    store_rows,
    take_in,
)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def cross_attention_long_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, begin_scale_ptr,
    output_ptr, row_max_ptr, total_ptr, logsumexp_ptr,
    stride_qb, stride_qh, stride_ql, stride_kb, stride_kh, stride_kl,
    stride_vb, stride_vh, stride_vl,
    heads, queries, keys, tiles, scale,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_BEGIN: tl.constexpr, OUTPUT: tl.constexpr, NORMALISERS: tl.constexpr,
    LOGSUMEXP: tl.constexpr,
):  # fmt: skip
    """One program: one tile of one head's queries, against all keys in tiles of BLOCK_K.

    On chip: the queries, the output and the rows' normalisers. Read: queries once; keys and
    values once per program, from a cache that they fit. Everything accumulates in float32.
    """
    program = tl.program_id(0)
    head = (program // tiles).to(tl.int64)
    sample = head // heads
    within = head % heads
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    if OUTPUT:
        value_ptr += (sample * stride_vb + within * stride_vh) * STRIDE_UNIT
        output_ptr += (sample * queries * heads + within) * DIM
    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * keys
        top = largest_bias(bias_ptr, keys, ALL_KEYS)
    if HAS_BEGIN:
        begin_scale_ptr += sample

    rows = program % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    # The last tile repeats the last query instead of testing every load.
    read = tl.minimum(rows, queries - 1)
    query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)

    row_max = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    output_0 = tl.zeros([BLOCK_Q, DIM_0], tl.float32)
    output_1 = tl.zeros([BLOCK_Q, DIM_1], tl.float32) if DIM_1 else output_0
    for first in tl.range(0, keys, BLOCK_K):
        offsets = first + tl.arange(0, BLOCK_K)
        key_0, key_1 = load_keys(key_ptr, offsets, stride_kl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1)
        factor, shift = logit_terms(
            bias_ptr, top, begin_scale_ptr, scale, offsets, keys, LOGIT_UNIT, HAS_BIAS, HAS_BEGIN
        )
        products = product(query_0, query_1, key_0, key_1, DIM_1, PRECISION)
        row_max, total, weights, shrink = take_in(
            row_max, total, logits(products, factor, shift, offsets, keys, False), LOGIT_UNIT
        )
        if OUTPUT:
            value_0, value_1 = load_keys(
                value_ptr, offsets, stride_vl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1
            )
            small = weights.to(value_0.dtype)
            output_0 *= shrink[:, None]
            output_0 = tl.dot(small, value_0, output_0, input_precision=PRECISION)
            if DIM_1:
                output_1 *= shrink[:, None]
                output_1 = tl.dot(small, value_1, output_1, input_precision=PRECISION)

    is_empty = total == 0.0  # not by the maximum, which passes over nan
    if HAS_BIAS:  # without a bias no key is removed, and 0 / 0 is nan
        total = tl.where(is_empty, 1.0, total)
    row_max = tl.where(row_max == -float("inf"), 0.0, row_max)
    if OUTPUT:
        inverse = 1.0 / total
        output_0 *= inverse[:, None]
        output_1 *= inverse[:, None]
        store_rows(output_ptr, output_0, output_1, rows, heads * DIM, queries, DIM, DIM_0, DIM_1)
    exists = rows < queries
    if NORMALISERS:
        tl.store(row_max_ptr + head * queries + rows, row_max, mask=exists)
        tl.store(total_ptr + head * queries + rows, total, mask=exists)
    if LOGSUMEXP:
        logsumexp = (row_max + logarithm(total, LOGIT_UNIT)) * (1.0 / LOGIT_UNIT) + top
        if HAS_BIAS:
            logsumexp = tl.where(is_empty, 0.0, logsumexp)
        tl.store(logsumexp_ptr + head * queries + rows, logsumexp, mask=exists)

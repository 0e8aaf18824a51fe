"""Forward for keys that do not fit one tile: a first look for the output, a second for the sums."""

import triton
import triton.language as tl

from memattn.kernels.triton.jit.primitives import (
    LN_2,
    UNALIGNED,
    UNSPECIALISED,
    largest_bias,
    load_keys,
    load_queries,
    logit_terms,
    logits,
    product,
    store_rows,
    surprise,
)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def cross_attention_long_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, begin_scale_ptr, token_ptr,
    output_ptr, mass_ptr, entropy_ptr, map_ptr, logsumexp_ptr,
    stride_qb, stride_qh, stride_ql, stride_kb, stride_kh, stride_kl,
    stride_vb, stride_vh, stride_vl,
    heads, queries, keys, tiles, scale_log2,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_BEGIN: tl.constexpr,
    HAS_TOKEN: tl.constexpr, STATISTICS: tl.constexpr, LOGSUMEXP: tl.constexpr,
):  # fmt: skip
    """One program: one tile of one head's queries, against all keys in tiles of BLOCK_K.

    On chip: the queries, the output and the rows' normalisers. Read: queries once; values once and
    keys twice per program, from a cache that they fit. Everything accumulates in float32.
    """
    program = tl.program_id(0)
    tile = program % tiles
    head = (program // tiles).to(tl.int64)
    sample = head // heads
    within = head % heads
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    value_ptr += (sample * stride_vb + within * stride_vh) * STRIDE_UNIT
    output_ptr += (sample * queries * heads + within) * DIM
    key_stride = stride_kl * STRIDE_UNIT
    value_stride = stride_vl * STRIDE_UNIT
    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * keys
        top = largest_bias(bias_ptr, keys, ALL_KEYS)
    if HAS_BEGIN:
        begin_scale_ptr += sample

    rows = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    # The last tile repeats the last query instead of testing every load; it counts once.
    read = tl.minimum(rows, queries - 1)
    query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)

    row_max = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    output_0 = tl.zeros([BLOCK_Q, DIM_0], tl.float32)
    output_1 = tl.zeros([BLOCK_Q, DIM_1], tl.float32) if DIM_1 else output_0
    for first in tl.range(0, keys, BLOCK_K):
        offsets = first + tl.arange(0, BLOCK_K)
        shifted = _logits_of_tile(
            query_0, query_1, key_ptr, key_stride, bias_ptr, top, begin_scale_ptr, scale_log2,
            offsets, keys, DIM, DIM_0, DIM_1, PRECISION, HAS_BIAS, HAS_BEGIN,
        )  # fmt: skip
        new_max = tl.maximum(row_max, tl.max(shifted, axis=1))
        # As long as a row has no keys, -inf - -inf would be nan.
        finite_max = tl.where(new_max == -float("inf"), 0.0, new_max)
        weights = tl.exp2(shifted - finite_max[:, None])
        shrink = tl.exp2(row_max - finite_max)
        total = total * shrink + tl.sum(weights, axis=1)
        value_0, value_1 = load_keys(value_ptr, offsets, value_stride, keys, DIM, DIM_0, DIM_1)
        small = weights.to(value_0.dtype)
        output_0 = tl.dot(small, value_0, output_0 * shrink[:, None], input_precision=PRECISION)
        if DIM_1:
            output_1 = tl.dot(small, value_1, output_1 * shrink[:, None], input_precision=PRECISION)
        row_max = new_max

    is_empty = total == 0.0  # not by the maximum, which passes over nan
    if HAS_BIAS:  # without a bias no key is removed, and 0 / 0 is nan
        total = tl.where(is_empty, 1.0, total)
    row_max = tl.where(row_max == -float("inf"), 0.0, row_max)
    inverse = 1.0 / total
    log_total = tl.log2(total)
    output_0 *= inverse[:, None]
    output_1 *= inverse[:, None]
    store_rows(output_ptr, output_0, output_1, rows, heads * DIM, queries, DIM, DIM_0, DIM_1)
    if LOGSUMEXP:
        logsumexp = (row_max + log_total) * LN_2 + top
        if HAS_BIAS:
            logsumexp = tl.where(is_empty, 0.0, logsumexp)
        tl.store(logsumexp_ptr + head * queries + rows, logsumexp, mask=rows < queries)

    if STATISTICS or HAS_TOKEN:
        counted = tl.where(rows < queries, inverse, 0.0)
        place = (head * tiles + tile) * keys
        token = tl.load(token_ptr + sample) if HAS_TOKEN else 0
        column = tl.zeros([BLOCK_Q], tl.float32)
        for first in tl.range(0, keys, BLOCK_K):
            offsets = first + tl.arange(0, BLOCK_K)
            shifted = _logits_of_tile(
                query_0, query_1, key_ptr, key_stride, bias_ptr, top, begin_scale_ptr, scale_log2,
                offsets, keys, DIM, DIM_0, DIM_1, PRECISION, HAS_BIAS, HAS_BEGIN,
            )  # fmt: skip
            shifted -= row_max[:, None]
            probs = tl.exp2(shifted) * counted[:, None]
            if STATISTICS:
                exists = offsets < keys
                tl.store(mass_ptr + place + offsets, tl.sum(probs, axis=0), mask=exists)
                entropy = tl.sum(probs * surprise(shifted, log_total), axis=0) * LN_2
                tl.store(entropy_ptr + place + offsets, entropy, mask=exists)
            if HAS_TOKEN:
                column += tl.sum(tl.where((offsets == token)[None, :], probs, 0.0), axis=1)
        if HAS_TOKEN:
            tl.store(map_ptr + head * queries + rows, column, mask=rows < queries)


@triton.jit
def _logits_of_tile(
    query_0, query_1, key_ptr, key_stride, bias_ptr, top, begin_scale_ptr, scale_log2,
    offsets, keys, DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr,
    PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_BEGIN: tl.constexpr,
):  # fmt: skip
    """Base-2 logits of a tile of queries and a tile of keys, which is loaded here."""
    key_0, key_1 = load_keys(key_ptr, offsets, key_stride, keys, DIM, DIM_0, DIM_1)
    factor, shift = logit_terms(
        bias_ptr, top, begin_scale_ptr, scale_log2, offsets, keys, HAS_BIAS, HAS_BEGIN
    )
    products = product(query_0, query_1, key_0, key_1, DIM_1, PRECISION)
    return logits(products, factor, shift, offsets, keys, False)

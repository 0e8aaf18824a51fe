"""Backward: probabilities recomputed from logsumexp, once by queries and once by keys.

With P = softmax(S) and dP = dO V^T: dS = P * (dP - rowsum(P * dP)), dQ = dS K, dK = dS^T Q and
dV = P^T dO, each product with the factor that made the logits.
"""

import triton
import triton.language as tl

from memattn.kernels.triton.jit.primitives import (
    UNALIGNED,
    UNSPECIALISED,
    exponential,
    largest_bias,
    load_keys,
    load_queries,
    logit_terms,
    logits,
    product,
    store_rows,
)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def query_gradient_kernel(
    grad_output_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, begin_scale_ptr, logsumexp_ptr,
    grad_query_ptr, inverse_ptr, delta_ptr,
    stride_gb, stride_gh, stride_gl, stride_qb, stride_qh, stride_ql,
    stride_kb, stride_kh, stride_kl, stride_vb, stride_vh, stride_vl,
    heads, queries, keys, tiles, scale,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_BEGIN: tl.constexpr,
):  # fmt: skip
    """One program: dQ of one tile of one head's queries; and what `key_gradient_kernel` needs.

    That is, for each row, rowsum(P * dP), and the inverse of P's sum: exp(S - logsumexp) adds up to
    one but for the rounding of logsumexp.
    """
    program = tl.program_id(0)
    head = (program // tiles).to(tl.int64)
    sample = head // heads
    within = head % heads
    grad_output_ptr += (sample * stride_gb + within * stride_gh) * STRIDE_UNIT
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    value_ptr += (sample * stride_vb + within * stride_vh) * STRIDE_UNIT
    grad_query_ptr += (sample * queries * heads + within) * DIM
    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * keys
        top = largest_bias(bias_ptr, keys, ALL_KEYS)
    if HAS_BEGIN:
        begin_scale_ptr += sample

    key_stride = stride_kl * STRIDE_UNIT
    value_stride = stride_vl * STRIDE_UNIT
    rows = program % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    read = tl.minimum(rows, queries - 1)
    query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)
    grad_0, grad_1 = load_queries(grad_output_ptr, read, stride_gl * STRIDE_UNIT, DIM, DIM_0, DIM_1)
    normaliser = (tl.load(logsumexp_ptr + head * queries + read) - top) * LOGIT_UNIT

    total = tl.zeros([BLOCK_Q], tl.float32)
    delta = tl.zeros([BLOCK_Q], tl.float32)
    for first in tl.range(0, keys, BLOCK_K):
        weights, grad_probs, _, _, _ = _against_keys(
            query_0, query_1, grad_0, grad_1, key_ptr, value_ptr, key_stride, value_stride,
            bias_ptr, top, begin_scale_ptr, scale, first, keys, normaliser,
            DIM, DIM_0, DIM_1, BLOCK_K, LOGIT_UNIT, PRECISION, HAS_BIAS, HAS_BEGIN,
        )  # fmt: skip
        total += tl.sum(weights, axis=1)
        delta += tl.sum(weights * grad_probs, axis=1)
    inverse = 1.0 / tl.where(total == 0.0, 1.0, total)
    delta *= inverse
    exists = rows < queries
    tl.store(inverse_ptr + head * queries + rows, inverse, mask=exists)
    tl.store(delta_ptr + head * queries + rows, delta, mask=exists)

    sum_0 = tl.zeros([BLOCK_Q, DIM_0], tl.float32)
    sum_1 = tl.zeros([BLOCK_Q, DIM_1], tl.float32) if DIM_1 else sum_0
    for first in tl.range(0, keys, BLOCK_K):
        weights, grad_probs, factor, key_0, key_1 = _against_keys(
            query_0, query_1, grad_0, grad_1, key_ptr, value_ptr, key_stride, value_stride,
            bias_ptr, top, begin_scale_ptr, scale, first, keys, normaliser,
            DIM, DIM_0, DIM_1, BLOCK_K, LOGIT_UNIT, PRECISION, HAS_BIAS, HAS_BEGIN,
        )  # fmt: skip
        grad_logits = weights * inverse[:, None] * (grad_probs - delta[:, None])
        small = (grad_logits * factor[None, :]).to(key_0.dtype)
        sum_0 = tl.dot(small, key_0, sum_0, input_precision=PRECISION)
        if DIM_1:
            sum_1 = tl.dot(small, key_1, sum_1, input_precision=PRECISION)
    # The factor is that of logits in their unit.
    sum_0 *= 1.0 / LOGIT_UNIT
    sum_1 *= 1.0 / LOGIT_UNIT
    store_rows(grad_query_ptr, sum_0, sum_1, rows, heads * DIM, queries, DIM, DIM_0, DIM_1)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def key_gradient_kernel(
    grad_output_ptr, query_ptr, key_ptr, value_ptr, bias_ptr, begin_scale_ptr, logsumexp_ptr,
    inverse_ptr, delta_ptr, grad_key_ptr, grad_value_ptr,
    stride_gb, stride_gh, stride_gl, stride_qb, stride_qh, stride_ql,
    stride_kb, stride_kh, stride_kl, stride_vb, stride_vh, stride_vl,
    heads, queries, keys, chunks, tiles, scale,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_BEGIN: tl.constexpr,
):  # fmt: skip
    """One program: what some tiles of one head's queries add to dK and dV of one tile of keys."""
    # Programs of the same queries side by side: these are read from memory once.
    key_tiles = tl.cdiv(keys, BLOCK_K)
    program = tl.program_id(0) // key_tiles
    chunk = program % chunks
    head = (program // chunks).to(tl.int64)
    sample = head // heads
    within = head % heads
    grad_output_ptr += (sample * stride_gb + within * stride_gh) * STRIDE_UNIT
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    value_ptr += (sample * stride_vb + within * stride_vh) * STRIDE_UNIT
    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * keys
        top = largest_bias(bias_ptr, keys, ALL_KEYS)
    if HAS_BEGIN:
        begin_scale_ptr += sample

    offsets = tl.program_id(0) % key_tiles * BLOCK_K + tl.arange(0, BLOCK_K)
    key_0, key_1 = load_keys(key_ptr, offsets, stride_kl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1)
    value_0, value_1 = load_keys(
        value_ptr, offsets, stride_vl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1
    )
    factor, shift = logit_terms(
        bias_ptr, top, begin_scale_ptr, scale, offsets, keys, LOGIT_UNIT, HAS_BIAS, HAS_BEGIN
    )
    grad_key_0 = tl.zeros([BLOCK_K, DIM_0], tl.float32)
    grad_value_0 = grad_key_0
    grad_key_1 = tl.zeros([BLOCK_K, DIM_1], tl.float32) if DIM_1 else grad_key_0
    grad_value_1 = grad_key_1
    begin = chunk * tiles * BLOCK_Q
    for start in tl.range(begin, tl.minimum(begin + tiles * BLOCK_Q, queries), BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        read = tl.minimum(rows, queries - 1)
        query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)
        grad_0, grad_1 = load_queries(
            grad_output_ptr, read, stride_gl * STRIDE_UNIT, DIM, DIM_0, DIM_1
        )
        normaliser = (tl.load(logsumexp_ptr + head * queries + read) - top) * LOGIT_UNIT
        inverse = tl.load(inverse_ptr + head * queries + read)
        inverse = tl.where(rows < queries, inverse, 0.0)
        delta = tl.load(delta_ptr + head * queries + read)
        weights, grad_probs = _weights_and_gradients(
            query_0, query_1, grad_0, grad_1, key_0, key_1, value_0, value_1,
            factor, shift, offsets, keys, normaliser, DIM_1, LOGIT_UNIT, PRECISION,
        )  # fmt: skip
        probs = weights * inverse[:, None]
        grad_logits = probs * (grad_probs - delta[:, None])
        probs = tl.trans(probs.to(query_0.dtype))
        small = tl.trans((grad_logits * factor[None, :]).to(query_0.dtype))
        grad_value_0 = tl.dot(probs, grad_0, grad_value_0, input_precision=PRECISION)
        grad_key_0 = tl.dot(small, query_0, grad_key_0, input_precision=PRECISION)
        if DIM_1:
            grad_value_1 = tl.dot(probs, grad_1, grad_value_1, input_precision=PRECISION)
            grad_key_1 = tl.dot(small, query_1, grad_key_1, input_precision=PRECISION)

    place = (head * chunks + chunk) * keys * DIM
    store_rows(
        grad_value_ptr + place, grad_value_0, grad_value_1, offsets, DIM, keys, DIM, DIM_0, DIM_1
    )
    grad_key_0 *= 1.0 / LOGIT_UNIT
    grad_key_1 *= 1.0 / LOGIT_UNIT
    store_rows(grad_key_ptr + place, grad_key_0, grad_key_1, offsets, DIM, keys, DIM, DIM_0, DIM_1)


@triton.jit
def _weights_and_gradients(
    query_0, query_1, grad_0, grad_1, key_0, key_1, value_0, value_1,
    factor, shift, offsets, keys, normaliser,
    DIM_1: tl.constexpr, LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """exp(S - logsumexp) and dP of a tile of queries and a tile of keys."""
    products = product(query_0, query_1, key_0, key_1, DIM_1, PRECISION)
    shifted = logits(products, factor, shift, offsets, keys, False) - normaliser[:, None]
    return exponential(shifted, LOGIT_UNIT), product(
        grad_0, grad_1, value_0, value_1, DIM_1, PRECISION
    )


@triton.jit
def _against_keys(
    query_0, query_1, grad_0, grad_1, key_ptr, value_ptr, key_stride, value_stride,
    bias_ptr, top, begin_scale_ptr, scale, first, keys, normaliser,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, BLOCK_K: tl.constexpr,
    LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_BEGIN: tl.constexpr,
):  # fmt: skip
    """`_weights_and_gradients` of the tile of keys from `first` on, its factor and its keys."""
    offsets = first + tl.arange(0, BLOCK_K)
    key_0, key_1 = load_keys(key_ptr, offsets, key_stride, keys, DIM, DIM_0, DIM_1)
    value_0, value_1 = load_keys(value_ptr, offsets, value_stride, keys, DIM, DIM_0, DIM_1)
    factor, shift = logit_terms(
        bias_ptr, top, begin_scale_ptr, scale, offsets, keys, LOGIT_UNIT, HAS_BIAS, HAS_BEGIN
    )
    weights, grad_probs = _weights_and_gradients(
        query_0, query_1, grad_0, grad_1, key_0, key_1, value_0, value_1,
        factor, shift, offsets, keys, normaliser, DIM_1, LOGIT_UNIT, PRECISION,
    )  # fmt: skip
    return weights, grad_probs, factor, key_0, key_1

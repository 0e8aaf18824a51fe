"""Forward for keys that fit one tile: loaded once, one look at every logit."""

import triton
import triton.language as tl

from memattn.kernels.triton.jit.primitives import (
    UNALIGNED,
    UNSPECIALISED,
    add_to_sums,
    exponential,
    largest_bias,
    load_keys,
    load_queries,
    logarithm,
    logit_terms,
    logits,
    product,
    store_part,
    total_rows,
)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def cross_attention_short_kernel(
    query_ptr, key_ptr, value_ptr, bias_ptr, begin_scale_ptr, token_ptr,
    output_ptr, mass_ptr, entropy_ptr, map_ptr, logsumexp_ptr,
    stride_qb, stride_qh, stride_ql, stride_kb, stride_kh, stride_kl,
    stride_vb, stride_vh, stride_vl,
    heads, queries, keys, chunks, tiles, scale,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr,
    KEYS_0: tl.constexpr, KEYS_1: tl.constexpr, STRIDE_UNIT: tl.constexpr,
    BLOCK_Q: tl.constexpr, LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_BEGIN: tl.constexpr, HAS_TOKEN: tl.constexpr,
    STATISTICS: tl.constexpr, LOGSUMEXP: tl.constexpr,
):  # fmt: skip
    """One program: one head's queries chunk * tiles * BLOCK_Q onwards, against all keys.

    On chip: keys and values, one tile of queries, the sums over queries. Read and written once:
    queries and output; keys and values once per program. Everything accumulates in float32.
    """
    program = tl.program_id(0)
    chunk = program % chunks
    head = (program // chunks).to(tl.int64)
    sample = head // heads
    within = head % heads
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    value_ptr += (sample * stride_vb + within * stride_vh) * STRIDE_UNIT
    output_ptr += (sample * queries * heads + within) * DIM

    offsets_0 = tl.arange(0, KEYS_0)
    offsets_1 = KEYS_0 + tl.arange(0, KEYS_1) if KEYS_1 else offsets_0
    key_00, key_01 = load_keys(key_ptr, offsets_0, stride_kl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1)
    value_00, value_01 = load_keys(
        value_ptr, offsets_0, stride_vl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1
    )
    key_10, key_11 = key_00, key_01
    value_10, value_11 = value_00, value_01
    if KEYS_1:
        key_10, key_11 = load_keys(
            key_ptr, offsets_1, stride_kl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1
        )
        value_10, value_11 = load_keys(
            value_ptr, offsets_1, stride_vl * STRIDE_UNIT, keys, DIM, DIM_0, DIM_1
        )

    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * keys
        top = largest_bias(bias_ptr, keys, KEYS_0 + KEYS_0 if KEYS_1 else KEYS_0)
    if HAS_BEGIN:
        begin_scale_ptr += sample
    token = 0
    if HAS_TOKEN:  # the nearest, should there be no such token
        token = tl.minimum(tl.maximum(tl.load(token_ptr + sample), 0), keys - 1)

    mass_0 = tl.zeros([BLOCK_Q // 16, 8, KEYS_0], tl.float32)
    entropy_0 = mass_0
    mass_1 = tl.zeros([BLOCK_Q // 16, 8, KEYS_1], tl.float32) if KEYS_1 else mass_0
    entropy_1 = mass_1
    first = chunk * tiles * BLOCK_Q
    for start in tl.range(first, tl.minimum(first + tiles * BLOCK_Q, queries), BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        # The last tile repeats the last query instead of testing every load; it counts once.
        read = tl.minimum(rows, queries - 1)
        query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)
        # Loaded for every tile: they are small and near, and registers are what this is short of.
        factor_0, shift_0 = logit_terms(
            bias_ptr, top, begin_scale_ptr, scale, offsets_0, keys, LOGIT_UNIT, HAS_BIAS, HAS_BEGIN
        )
        factor_1, shift_1 = logit_terms(
            bias_ptr, top, begin_scale_ptr, scale, offsets_1, keys, LOGIT_UNIT, HAS_BIAS, HAS_BEGIN
        )
        products = product(query_0, query_1, key_00, key_01, DIM_1, PRECISION)
        shifted_0 = logits(products, factor_0, shift_0, offsets_0, keys, KEYS_1 > 0)
        shifted_1 = shifted_0
        row_max = tl.max(shifted_0, axis=1)
        if KEYS_1:
            products = product(query_0, query_1, key_10, key_11, DIM_1, PRECISION)
            shifted_1 = logits(products, factor_1, shift_1, offsets_1, keys, False)
            row_max = tl.maximum(row_max, tl.max(shifted_1, axis=1))
        if HAS_BIAS:  # a row without keys would give -inf - -inf = nan
            row_max = tl.where(row_max == -float("inf"), 0.0, row_max)
        shifted_0 -= row_max[:, None]
        weights_0 = exponential(shifted_0, LOGIT_UNIT)
        total = tl.sum(weights_0, axis=1)
        weights_1 = weights_0
        if KEYS_1:
            shifted_1 -= row_max[:, None]
            weights_1 = exponential(shifted_1, LOGIT_UNIT)
            total += tl.sum(weights_1, axis=1)
        is_empty = total == 0.0  # not by the maximum, which passes over nan
        if HAS_BIAS:
            total = tl.where(is_empty, 1.0, total)
        inverse = 1.0 / total

        log_total = logarithm(total, LOGIT_UNIT)
        if LOGSUMEXP:
            logsumexp = (row_max + log_total) * (1.0 / LOGIT_UNIT) + top
            if HAS_BIAS:
                logsumexp = tl.where(is_empty, 0.0, logsumexp)
            tl.store(logsumexp_ptr + head * queries + rows, logsumexp, mask=rows < queries)
        if HAS_TOKEN:
            column = tl.sum(tl.where((offsets_0 == token)[None, :], weights_0, 0.0), axis=1)
            if KEYS_1:
                chosen = (offsets_1 == token)[None, :]
                column += tl.sum(tl.where(chosen, weights_1, 0.0), axis=1)
            tl.store(map_ptr + head * queries + rows, column * inverse, mask=rows < queries)
        counted = tl.where(rows < queries, inverse, 0.0)
        if STATISTICS:
            mass_0, entropy_0 = add_to_sums(
                mass_0, entropy_0, weights_0, shifted_0, counted, log_total, BLOCK_Q, KEYS_0
            )
            if KEYS_1:
                mass_1, entropy_1 = add_to_sums(
                    mass_1, entropy_1, weights_1, shifted_1, counted, log_total, BLOCK_Q, KEYS_1
                )

        small_0 = weights_0.to(value_00.dtype)
        small_1 = weights_1.to(value_00.dtype)
        output = tl.dot(small_0, value_00, input_precision=PRECISION)
        if KEYS_1:
            output = tl.dot(small_1, value_10, output, input_precision=PRECISION)
        output *= inverse[:, None]
        store_part(output_ptr, output, rows, heads * DIM, queries, 0, DIM_0, DIM)
        if DIM_1:
            output = tl.dot(small_0, value_01, input_precision=PRECISION)
            if KEYS_1:
                output = tl.dot(small_1, value_11, output, input_precision=PRECISION)
            output *= inverse[:, None]
            store_part(output_ptr, output, rows, heads * DIM, queries, DIM_0, DIM_1, DIM)

    if STATISTICS:
        place = (head * chunks + chunk) * keys
        _store_sums(mass_ptr + place, mass_0, offsets_0, keys, 1.0, BLOCK_Q, KEYS_0)
        _store_sums(
            entropy_ptr + place, entropy_0, offsets_0, keys, 1.0 / LOGIT_UNIT, BLOCK_Q, KEYS_0
        )
        if KEYS_1:
            _store_sums(mass_ptr + place, mass_1, offsets_1, keys, 1.0, BLOCK_Q, KEYS_1)
            _store_sums(
                entropy_ptr + place, entropy_1, offsets_1, keys, 1.0 / LOGIT_UNIT, BLOCK_Q, KEYS_1
            )


@triton.jit
def _store_sums(row_ptr, sums, offsets, keys, unit, BLOCK_Q: tl.constexpr, COLUMNS: tl.constexpr):
    """Write sums over a program's queries, one number per key."""
    tl.store(row_ptr + offsets, total_rows(sums, BLOCK_Q, COLUMNS) * unit, mask=offsets < keys)

"""Statistics of key columns whose rows have their normalisers, and the normalisers if not."""

import triton
import triton.language as tl

from memattn.kernels.triton.jit.primitives import (
    LN_2,
    LOG2_E,
    UNALIGNED,
    UNSPECIALISED,
    add_to_sums,
    largest_bias,
    load_keys,
    load_queries,
    logit_terms,
    logits,
    product,
    total_rows,
)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def row_normaliser_kernel(
    query_ptr, key_ptr, bias_ptr, row_max_ptr, total_ptr,
    stride_qb, stride_qh, stride_ql, stride_kb, stride_kh, stride_kl,
    heads, queries, columns, tiles, scale_log2,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """One program: the largest base-2 logit of BLOCK_Q rows, and the sum of exp2 below it."""
    program = tl.program_id(0)
    head = (program // tiles).to(tl.int64)
    sample = head // heads
    within = head % heads
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * columns
        top = largest_bias(bias_ptr, columns, ALL_KEYS)
    rows = program % tiles * BLOCK_Q + tl.arange(0, BLOCK_Q)
    read = tl.minimum(rows, queries - 1)
    query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)
    row_max = tl.full([BLOCK_Q], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    for first in tl.range(0, columns, BLOCK_K):
        offsets = first + tl.arange(0, BLOCK_K)
        key_0, key_1 = load_keys(
            key_ptr, offsets, stride_kl * STRIDE_UNIT, columns, DIM, DIM_0, DIM_1
        )
        factor, shift = logit_terms(
            bias_ptr, top, None, scale_log2, offsets, columns, HAS_BIAS, False
        )
        products = product(query_0, query_1, key_0, key_1, DIM_1, PRECISION)
        shifted = logits(products, factor, shift, offsets, columns, False)
        new_max = tl.maximum(row_max, tl.max(shifted, axis=1))
        # As long as a row has no keys, -inf - -inf would be nan.
        finite_max = tl.where(new_max == -float("inf"), 0.0, new_max)
        weights = tl.exp2(shifted - finite_max[:, None])
        total = total * tl.exp2(row_max - finite_max) + tl.sum(weights, axis=1)
        row_max = new_max
    if HAS_BIAS:  # without a bias no column is removed, and 0 / 0 is nan
        total = tl.where(total == 0.0, 1.0, total)
    row_max = tl.where(row_max == -float("inf"), 0.0, row_max)
    exists = rows < queries
    tl.store(row_max_ptr + head * queries + rows, row_max, mask=exists)
    tl.store(total_ptr + head * queries + rows, total, mask=exists)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def column_statistics_kernel(
    query_ptr, key_ptr, normaliser_ptr, total_ptr, bias_ptr, token_ptr,
    mass_ptr, entropy_ptr, map_ptr,
    stride_qb, stride_qh, stride_ql, stride_kb, stride_kh, stride_kl, stride_nb, stride_nh,
    heads, queries, columns, chunks, scale_log2,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, TILES: tl.constexpr,
    PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_TOKEN: tl.constexpr,
    IS_LOGSUMEXP: tl.constexpr,
):  # fmt: skip
    """One program: one tile of one head's columns, against TILES tiles of its queries.

    The normaliser is the rows' logsumexp, or their largest base-2 logit beside the total. On chip:
    the columns and the sums over queries. Read: columns once per program, queries once per tile of
    columns. Everything accumulates in float32.
    """
    program = tl.program_id(0)
    chunk = program % chunks
    head = (program // chunks).to(tl.int64)
    sample = head // heads
    within = head % heads
    query_ptr += (sample * stride_qb + within * stride_qh) * STRIDE_UNIT
    key_ptr += (sample * stride_kb + within * stride_kh) * STRIDE_UNIT
    normaliser_ptr += sample * stride_nb + within * stride_nh
    top = 0.0
    if HAS_BIAS:
        bias_ptr += sample * columns
        top = largest_bias(bias_ptr, columns, ALL_KEYS)
    tile = tl.program_id(1)
    offsets = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    key_0, key_1 = load_keys(key_ptr, offsets, stride_kl * STRIDE_UNIT, columns, DIM, DIM_0, DIM_1)
    factor, shift = logit_terms(bias_ptr, top, None, scale_log2, offsets, columns, HAS_BIAS, False)
    token = tl.load(token_ptr + sample) if HAS_TOKEN else 0

    mass = tl.zeros([BLOCK_Q // 16, 8, BLOCK_K], tl.float32)
    entropy = mass
    begin = chunk * (TILES * BLOCK_Q)
    for start in tl.range(begin, tl.minimum(begin + TILES * BLOCK_Q, queries), BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        # The last tile repeats the last query instead of testing every load; it counts once.
        read = tl.minimum(rows, queries - 1)
        query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)
        normaliser = tl.load(normaliser_ptr + read)
        counts = rows < queries
        if IS_LOGSUMEXP:
            # Libraries mark a row without keys by either infinity: its probabilities are 0.
            counts = counts & (tl.abs(normaliser) != float("inf"))
            normaliser = (normaliser - top) * LOG2_E
            total = tl.full([BLOCK_Q], 1.0, tl.float32)
        else:
            total = tl.load(total_ptr + head * queries + read)
        products = product(query_0, query_1, key_0, key_1, DIM_1, PRECISION)
        shifted = logits(products, factor, shift, offsets, columns, False) - normaliser[:, None]
        # Whatever such a row holds, and a weight may be inf where a logsumexp is not its row's.
        shifted = tl.where(counts[:, None], shifted, -float("inf"))
        weights = tl.exp2(shifted)
        inverse = 1.0 / total
        mass, entropy = add_to_sums(
            mass, entropy, weights, shifted, inverse, tl.log2(total), BLOCK_Q, BLOCK_K
        )
        if HAS_TOKEN:
            column = tl.sum(tl.where((offsets == token)[None, :], weights, 0.0), axis=1) * inverse
            # Of all tiles the one that has the token; the nearest, should there be no such token.
            if tl.minimum(tl.maximum(token, 0), columns - 1) // BLOCK_K == tile:
                tl.store(map_ptr + head * queries + rows, column, mask=rows < queries)

    place = (head * chunks + chunk) * columns
    exists = offsets < columns
    tl.store(mass_ptr + place + offsets, total_rows(mass, BLOCK_Q, BLOCK_K), mask=exists)
    entropy_nats = total_rows(entropy, BLOCK_Q, BLOCK_K) * LN_2
    tl.store(entropy_ptr + place + offsets, entropy_nats, mask=exists)

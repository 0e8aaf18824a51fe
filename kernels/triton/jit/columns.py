"""Statistics of key columns whose rows have their normalisers."""

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
    total_rows,
)


@triton.jit(do_not_specialize=UNSPECIALISED, do_not_specialize_on_alignment=UNALIGNED)
def column_statistics_kernel(
    query_ptr, key_ptr, normaliser_ptr, total_ptr, bias_ptr, begin_scale_ptr, token_ptr,
    mass_ptr, entropy_ptr, map_ptr,
    stride_qb, stride_qh, stride_ql, stride_kb, stride_kh, stride_kl, stride_nb, stride_nh,
    heads, queries, columns, chunks, tiles, scale,
    DIM: tl.constexpr, DIM_0: tl.constexpr, DIM_1: tl.constexpr, ALL_KEYS: tl.constexpr,
    STRIDE_UNIT: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
    LOGIT_UNIT: tl.constexpr, PRECISION: tl.constexpr, HAS_BIAS: tl.constexpr,
    HAS_BEGIN: tl.constexpr, HAS_TOKEN: tl.constexpr, IS_LOGSUMEXP: tl.constexpr,
):  # fmt: skip
    """One program: one tile of one head's columns, against some tiles of its queries.

    The normaliser is the rows' logsumexp, or their largest logit beside the total. On chip:
    the columns and the sums over queries. Read: columns once per program, queries once per tile of
    columns. Everything accumulates in float32.
    """
    # Programs of the same queries side by side: these are read from memory once.
    key_tiles = tl.cdiv(columns, BLOCK_K)
    tile = tl.program_id(0) % key_tiles
    program = tl.program_id(0) // key_tiles
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
    if HAS_BEGIN:
        begin_scale_ptr += sample
    offsets = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    key_0, key_1 = load_keys(key_ptr, offsets, stride_kl * STRIDE_UNIT, columns, DIM, DIM_0, DIM_1)
    factor, shift = logit_terms(
        bias_ptr, top, begin_scale_ptr, scale, offsets, columns, LOGIT_UNIT, HAS_BIAS, HAS_BEGIN
    )
    token = 0
    if HAS_TOKEN:  # the nearest, should there be no such token
        token = tl.minimum(tl.maximum(tl.load(token_ptr + sample), 0), columns - 1)

    mass = tl.zeros([BLOCK_Q // 16, 8, BLOCK_K], tl.float32)
    entropy = mass
    begin = chunk * tiles * BLOCK_Q
    for start in tl.range(begin, tl.minimum(begin + tiles * BLOCK_Q, queries), BLOCK_Q):
        rows = start + tl.arange(0, BLOCK_Q)
        # The last tile repeats the last query instead of testing every load; it counts once.
        read = tl.minimum(rows, queries - 1)
        query_0, query_1 = load_queries(query_ptr, read, stride_ql * STRIDE_UNIT, DIM, DIM_0, DIM_1)
        normaliser = tl.load(normaliser_ptr + read)
        counts = rows < queries
        if IS_LOGSUMEXP:
            # Libraries mark a row without keys by either infinity: its probabilities are 0.
            counts = counts & (tl.abs(normaliser) != float("inf"))
            normaliser = (normaliser - top) * LOGIT_UNIT
            total = tl.full([BLOCK_Q], 1.0, tl.float32)
        else:
            total = tl.load(total_ptr + head * queries + read)
        products = product(query_0, query_1, key_0, key_1, DIM_1, PRECISION)
        shifted = logits(products, factor, shift, offsets, columns, False) - normaliser[:, None]
        # Whatever such a row holds, and a weight may be inf where a logsumexp is not its row's.
        shifted = tl.where(counts[:, None], shifted, -float("inf"))
        weights = exponential(shifted, LOGIT_UNIT)
        inverse = 1.0 / total
        mass, entropy = add_to_sums(
            mass, entropy, weights, shifted, inverse, logarithm(total, LOGIT_UNIT), BLOCK_Q, BLOCK_K
        )
        if HAS_TOKEN:
            column = tl.sum(tl.where((offsets == token)[None, :], weights, 0.0), axis=1) * inverse
            if token // BLOCK_K == tile:  # of all tiles the one that has the token
                tl.store(map_ptr + head * queries + rows, column, mask=rows < queries)

    place = (head * chunks + chunk) * columns
    exists = offsets < columns
    tl.store(mass_ptr + place + offsets, total_rows(mass, BLOCK_Q, BLOCK_K), mask=exists)
    entropy_nats = total_rows(entropy, BLOCK_Q, BLOCK_K) * (1.0 / LOGIT_UNIT)
    tl.store(entropy_ptr + place + offsets, entropy_nats, mask=exists)

"""The sums of several programs made one, always in the same order."""

import triton
import triton.language as tl

from memattn.kernels.triton.jit.primitives import UNSPECIALISED


@triton.jit(do_not_specialize=[*UNSPECIALISED, "depth"])
def fold_kernel(
    first_ptr, second_ptr, first_folded_ptr, second_folded_ptr, stride_gb, stride_gh, stride_gl,
    heads, columns, chunks, depth,
    BLOCK_CHUNKS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program: BLOCK_COLUMNS sums of one row of one tensor, written in its folded one's dtype.

    Every block of chunks is a tree, and what a block's sum loses is added to the next (Kahan):
    sequences of 64 blocks broke the error budget at 65 536 queries.
    """
    partials_ptr = first_ptr
    folded_ptr = first_folded_ptr
    if tl.program_id(1) == 1:
        partials_ptr = second_ptr
        folded_ptr = second_folded_ptr
    blocks = tl.cdiv(columns, BLOCK_COLUMNS)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    offsets = tl.program_id(0) % blocks * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    partials_ptr += row * chunks * columns
    total = tl.zeros([BLOCK_COLUMNS], tl.float32)
    lost = tl.zeros([BLOCK_COLUMNS], tl.float32)
    for start in tl.range(0, chunks, BLOCK_CHUNKS):
        chunk = start + tl.arange(0, BLOCK_CHUNKS)
        mask = (chunk < chunks)[:, None] & (offsets < columns)[None, :]
        addresses = partials_ptr + chunk[:, None] * columns + offsets[None, :]
        block = tl.sum(tl.load(addresses, mask=mask, other=0.0), axis=0) - lost
        new_total = total + block
        # Of an infinite total nothing is lost that could be told.
        lost = tl.where(tl.abs(new_total) == float("inf"), 0.0, (new_total - total) - block)
        total = new_total
    folded_ptr += row // heads * stride_gb + row % heads * stride_gh
    addresses = folded_ptr + offsets // depth * stride_gl + offsets % depth
    tl.store(addresses, total.to(folded_ptr.dtype.element_ty), mask=offsets < columns)

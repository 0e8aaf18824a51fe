"""How a call is cut up: tiles in two parts, and what a program has of queries and warps."""

import functools
from typing import NamedTuple

import torch

# Reduction length of one tensor-core instruction on 16-bit numbers: Triton pads tiles up to it.
_LEAST_PART = 16
# Float32 products over a longer part spill registers.
_MOST_PART = 128
# Columns that a second part has to save: 40 as 32 + 16 takes 54 registers more than as 64, and on
# Hopper no fewer instructions (benchmarks/results/triton-parts.txt).
_WORTH_TWO = 32
# More keys than that are never one tile: their sums alone would take most of a thread's registers.
_MOST_SHORT = 96
# What 128 threads can hold of 64 queries while all keys are one tile, in numbers per query.
_SHORT_NUMBERS = 280
# The same where logits have a bias, with other weights: 77 keys fit with a depth of 64.
_BIASED_NUMBERS = 384
# Times some twenty heads, a few for each multiprocessor of the largest GPUs.
_PROGRAMS_PER_HEAD = 16


class Tiles(NamedTuple):
    """How one kernel is launched. None of it may depend on B or H: results do not.

    Attributes:
        block_q: Queries per tile.
        block_k: Keys per tile; 0 where all keys are one tile.
        tiles: Tiles of queries per program, at most.
        warps: Warps per program.
        stages: Tiles that are being loaded or computed at a time.
    """

    block_q: int
    block_k: int
    tiles: int
    warps: int
    stages: int


def parts(length: int) -> tuple[int, int]:
    """A power of two that holds up to 256, or two where they save much: 77 is 64 + 16, 40 is 64.

    Triton's tiles are powers of two; 77 keys in one of them would compute 128.
    """
    whole = max(_LEAST_PART, 1 << (length - 1).bit_length())
    large = whole // 2
    # A smaller part beside 128 spills registers in a backward.
    small = max(_LEAST_PART, large // 4, 1 << max(length - large - 1, 0).bit_length())
    saves = whole - large - small >= _WORTH_TWO
    return (large, small) if saves or whole > _MOST_PART else (whole, 0)


def tiles_per_program(tiles: Tiles, queries: int) -> int:
    """How many tiles of queries one program takes: fewer where that leaves too few programs.

    Not by the number of heads or samples, which would share a sample's sums out differently.
    """
    return min(tiles.tiles, max(1, queries // (tiles.block_q * _PROGRAMS_PER_HEAD)))


@functools.cache
def forward_tiles(
    keys: int, dim: int, dtype: torch.dtype, *, biased: bool, tensor_memory: bool
) -> Tiles:
    """What the forward of a call is launched with; `biased` is one with key_bias or begin_scale.

    With `tensor_memory` products of 64 rows or more come out of it, and lie in threads row by row;
    those of fewer rows lie there as on other GPUs.

    The limits are where the compiler runs out of registers; which of the sizes below them are
    fastest has not been measured.
    """
    depth = sum(parts(dim))
    if dtype == torch.float32:
        block_q, block_k = (16, 64) if 64 < depth <= 96 else (32, 32 if depth <= 160 else 16)
        return Tiles(block_q=block_q, block_k=block_k, tiles=1, warps=8, stages=1)
    all_keys = sum(parts(keys))
    # Two sums for each key, and half as many numbers again as the output has.
    numbers = 2 * all_keys + 1.5 * depth
    holds_bias = 4 * all_keys + depth <= _BIASED_NUMBERS
    by_rows = tensor_memory and depth > 64
    block_q = 32 if tensor_memory and depth <= 64 else 64
    if all_keys <= _MOST_SHORT and numbers <= _SHORT_NUMBERS and (holds_bias or not biased):
        stages = 1 if biased or depth > 64 else 2
        warps = 8 if by_rows else 4
        return Tiles(block_q, block_k=0, tiles=256 // block_q, warps=warps, stages=stages)
    if depth <= 80:
        block_k = 32 if depth <= 32 else 64
        return Tiles(block_q, block_k=block_k, tiles=1, warps=4, stages=1 if biased else 2)
    if depth <= 160:
        return Tiles(block_q, block_k=32, tiles=1, warps=4, stages=1 if biased else 3)
    return Tiles(block_q, block_k=32, tiles=1, warps=8, stages=1 if biased else 2)


@functools.cache
def backward_tiles(dim: int, dtype: torch.dtype, *, tensor_memory: bool) -> Tiles:
    """What both kernels of a backward are launched with; `tiles` is that of the second."""
    depth = sum(parts(dim))
    if dtype == torch.float32:
        return Tiles(32 if depth <= 96 else 16, block_k=16, tiles=64, warps=8, stages=1)
    warps = 8 if tensor_memory else 4
    if depth <= 80:
        block_k = 16 if depth <= 32 else 32
        return Tiles(block_q=32, block_k=block_k, tiles=32, warps=warps, stages=1)
    return Tiles(64 if depth <= 192 else 32, block_k=16, tiles=16, warps=warps, stages=1)


@functools.cache
def column_tiles(dim: int, dtype: torch.dtype, *, tensor_memory: bool) -> Tiles:
    """What the statistics of columns are launched with."""
    deep = sum(parts(dim)) > 192
    if dtype == torch.float32:
        block = 16 if deep else 32
        return Tiles(block_q=block, block_k=block, tiles=512 // block, warps=8, stages=1)
    if tensor_memory:
        return Tiles(block_q=32, block_k=32 if deep else 64, tiles=16, warps=4, stages=2)
    return Tiles(block_q=64, block_k=64, tiles=8, warps=4, stages=2)

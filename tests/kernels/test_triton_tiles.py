"""How the Triton kernels cut up depth, keys and queries."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from memattn.kernels.triton.tiles import (
    Tiles,
    backward_tiles,
    column_tiles,
    forward_tiles,
    parts,
    tiles_per_program,
)
from tests.kernels.cross_attention import DTYPES


@pytest.mark.parametrize(
    ("length", "expected"),
    [
        (1, (16, 0)),
        (16, (16, 0)),
        (17, (32, 0)),
        (40, (64, 0)),
        (64, (64, 0)),
        (72, (64, 16)),
        (77, (64, 16)),
        (81, (64, 32)),
        (96, (64, 32)),
        (97, (128, 0)),
        (120, (128, 0)),
        (136, (128, 32)),
        (160, (128, 32)),
        (193, (128, 128)),
        (256, (128, 128)),
    ],
)
def test_parts_of_lengths_that_models_have(length, expected):
    assert parts(length) == expected


def test_two_parts_are_the_tightest_and_save_enough():
    powers = [16 << n for n in range(5)]
    pairs = [(a, b) for a in powers for b in powers if a // 4 <= b < a]
    for length in range(1, 257):
        whole = min(power for power in powers if power >= length)
        tightest = min(a + b for a, b in pairs if a + b >= length)
        expected = tightest if whole - tightest >= 32 else whole
        assert sum(parts(length)) == expected
        assert parts(length) in [*pairs, (128, 128)] or parts(length) == (whole, 0)
        assert max(parts(length)) <= 128


@pytest.mark.parametrize("tensor_memory", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", range(8, 257, 8))
def test_tiles_are_what_the_kernels_can_be_compiled_with(dim, dtype, tensor_memory):
    gpu = {"tensor_memory": tensor_memory}
    tiles = [
        forward_tiles(keys, dim, dtype, biased=biased, **gpu)
        for keys in (1, 16, 77, 120, 128, 129, 1024)
        for biased in (False, True)
    ]
    for one in (*tiles, backward_tiles(dim, dtype, **gpu), column_tiles(dim, dtype, **gpu)):
        assert one.block_q % 16 == 0  # rows r and r + 8 of every 16 are added in one thread
        assert one.block_q.bit_count() == 1
        assert one.block_k.bit_count() <= 1
        assert one.warps in (4, 8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tensor_memory", [False, True])
def test_77_keys_are_one_tile_up_to_a_depth_of_80_on_every_gpu(dtype, tensor_memory):
    for dim in (40, 64, 80):
        tiles = forward_tiles(77, dim, dtype, biased=False, tensor_memory=tensor_memory)
        assert tiles.block_k == 0
        assert tiles.block_q * tiles.tiles == 256


@pytest.mark.parametrize(
    ("queries", "expected"), [(1, 1), (64, 1), (1024, 1), (2048, 2), (4096, 4), (65536, 4)]
)
def test_a_head_has_sixteen_programs_before_one_has_more_tiles(queries, expected):
    tiles = Tiles(block_q=64, block_k=0, tiles=4, warps=4, stages=1)
    assert tiles_per_program(tiles, queries) == expected

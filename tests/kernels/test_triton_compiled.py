"""The Triton kernels compiled for GPUs that are not here: registers, tensor cores, wide loads."""

import csv
import itertools
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

import triton
from triton.backends.compiler import GPUTarget

from memattn.benchmarks.compiled import (
    ASKED,
    SUMS,
    Case,
    Compiled,
    cases,
    compile_for,
    compiled,
    tiles_of,
)
from memattn.kernels.triton.tiles import parts

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "triton-compiled.csv"
# KiB of shared memory that a program may ask for, by compute capability: CUDA's programming guide,
# table of technical specifications, less the system's one. 8.0 has more, 8.6 and 8.9 do not.
MOST_SHARED = {80: 99, 90: 227, 100: 227, 120: 99}
# Compiled in every run: every kernel and every capability, at sizes of real models.
FEW = [
    Case("forward", "fp16", 40, 77, "statistics", 80),
    Case("forward", "bf16", 80, 77, "token", 80),
    Case("forward", "bf16", 40, 77, "statistics", 90),
    Case("forward", "bf16", 40, 77, "everything", 90),
    Case("forward", "bf16", 40, 77, "everything", 100),
    Case("forward", "bf16", 80, 77, "statistics", 100),
    Case("forward", "bf16", 64, 77, "statistics", 120),
    Case("forward", "fp32", 64, 333, "plain", 90),
    Case("key_gradient", "bf16", 64, 333, "statistics", 80),
    Case("key_gradient", "bf16", 64, 333, "statistics", 100),
    Case("query_gradient", "fp16", 40, 333, "everything", 90),
    Case("key_gradient", "fp32", 160, 333, "statistics", 90),
    Case("normalisers", "bf16", 128, 333, "statistics", 90),
    Case("columns", "bf16", 128, 333, "everything", 90),
    Case("columns", "bf16", 128, 333, "everything", 100),
    Case("columns", "bf16", 64, 333, "training", 90),
    Case("forward", "bf16", 64, 77, "masked", 90),
    Case("fold", "fp32", 8, 77, "statistics", 90),
]
AMD = GPUTarget("hip", "gfx942", 64)


def name(case):
    return "-".join(map(str, case))


def committed():
    with TABLE.open() as stream:
        rows = list(csv.reader(stream))[1:]
    fields = len(Case._fields)
    return {
        Case(kernel, dtype, int(dim), int(keys), asked, int(capability)): (
            row[0],
            Compiled(*map(int, row[1 + fields :])),
        )
        for row in rows
        for kernel, dtype, dim, keys, asked, capability in [row[1 : 1 + fields]]
    }


@pytest.mark.parametrize("case", FEW, ids=name)
def test_kernels_keep_to_their_budget(case):
    check(case)


@pytest.mark.proof
@pytest.mark.parametrize("case", list(cases()), ids=name)
def test_every_kernel_keeps_to_its_budget(case):
    check(case)


def check(case):
    """Within what the GPUs have, and with the Triton of the table no worse than the table."""
    found = compiled(case)
    assert_sound(case, found)
    version, before = committed()[case]
    if version == triton.__version__:
        assert found.registers <= before.registers, (found, before)
        assert found.shared <= before.shared, (found, before)
        assert found.instructions <= 1.02 * before.instructions, (found, before)
        assert found.matrix >= before.matrix, (found, before)
        assert found.wide >= before.wide, (found, before)
        assert found.narrow <= before.narrow, (found, before)


def test_the_table_has_every_case_and_none_goes_beyond_what_gpus_have():
    table = committed()
    assert set(table) == set(cases())
    for case, (_, found) in table.items():
        assert_sound(case, found)


@pytest.mark.parametrize(
    "case",
    [
        Case("forward", "bf16", 64, 77, "everything", 80),
        Case("forward", "fp32", 64, 333, "statistics", 80),
        Case("key_gradient", "fp16", 80, 333, "masked", 80),
        Case("columns", "bf16", 128, 333, "statistics", 80),
    ],
    ids=name,
)
def test_kernels_compile_for_amd(case):
    made = compile_for(AMD, case)
    assert made.asm["hsaco"]
    assert made.metadata.shared <= 64 * 1024  # of a compute unit


@pytest.mark.parametrize("capability", [80, 100])
def test_the_table_has_every_way_that_a_call_can_be_cut_up(capability):
    """Of all head dimensions and numbers of keys, with key_bias and without."""
    lengths = (*range(1, 257), 1024)

    def way(case):
        keys = None if (tiles := tiles_of(case)).block_k else parts(case.keys)
        return *case[:2], case.asked == "everything", tiles, parts(case.dim), keys

    in_the_table = {way(case) for case in cases() if case.capability == capability}
    for dtype, dim in itertools.product(("bf16", "fp32"), range(8, 257, 8)):
        calls = [("forward", keys, asked) for keys in lengths for asked in ASKED[2:]]
        calls += [(kernel, 333, asked) for kernel in SUMS for asked in ASKED[2:]]
        for kernel, keys, asked in calls:
            case = Case(kernel, dtype, dim, keys, asked, capability)
            assert way(case) in in_the_table, case


def assert_sound(case, found):
    """Registers, memory that GPUs have, tensor cores where they take the dtype, wide loads."""
    # The compiler keeps a few bytes elsewhere even with registers left, so that more programs run
    # at a time. No tiles were made for TF32's products or RTX 50.
    is_left = case.dtype == "tf32" or case.capability == 120
    assert found.spilled <= (160 if is_left else 24), (case, found)
    assert found.shared <= 1024 * MOST_SHARED[case.capability], (case, found)
    if case.kernel != "fold":
        assert (found.matrix > 0) == (case.dtype != "fp32"), (case, found)
    if case.asked != "odd":  # whose addresses are multiples of 2
        # Parts of 16 keys by 16 have one number for each of 256 threads; two, loaded once.
        is_eight_warps = tiles_of(case).warps == 8 and case.dtype != "fp32"
        few = 2 if is_eight_warps and case.kernel == "forward" and 64 < case.dim <= 80 else 0
        # A tile of so short rows has less than 16 bytes for each thread.
        is_short_row = case.dim <= 24 or case.kernel == "fold"
        assert found.narrow <= few or is_short_row, (case, found)
        assert found.wide > 0 or is_short_row, (case, found)

"""The Triton kernels compiled for GPUs that are not here: registers, tensor cores, wide loads."""

import csv
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")

import triton

from memattn.benchmarks.compiled import Case, Compiled, cases, compiled

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "triton-compiled.csv"
# What a program may ask for, of all GPUs that Triton compiles for: CUDA's programming guide, table
# of technical specifications, compute capabilities 8.6, 8.9 and 12.0, less the system's kilobyte.
MOST_SHARED = 99 * 1024
# Compiled in every run: every kernel and every capability, at sizes of real models.
FEW = [
    Case("forward", "bf16", 40, 77, "statistics", 90),
    Case("forward", "bf16", 40, 77, "everything", 90),
    Case("forward", "fp16", 64, 77, "statistics", 80),
    Case("forward", "bf16", 40, 77, "everything", 100),
    Case("forward", "bf16", 80, 77, "statistics", 100),
    Case("forward", "fp32", 64, 333, "plain", 90),
    Case("key_gradient", "bf16", 64, 333, "statistics", 80),
    Case("query_gradient", "fp16", 80, 333, "everything", 90),
    Case("key_gradient", "fp32", 160, 333, "statistics", 90),
    Case("normalisers", "bf16", 128, 333, "statistics", 90),
    Case("columns", "bf16", 128, 333, "everything", 90),
    Case("fold", "fp32", 8, 77, "statistics", 90),
]


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


def test_the_table_has_every_case_and_none_beyond_what_gpus_have():
    table = committed()
    assert set(table) == set(cases())
    for case, (_, found) in table.items():
        assert_sound(case, found)


def assert_sound(case, found):
    """No spills; memory that GPUs have; tensor cores where they take the dtype; wide loads."""
    assert found.spilled == 0, (case, found)
    assert found.shared <= MOST_SHARED, (case, found)
    # Parts of 16 keys by 16 have one number for each of 256 threads; there are two, loaded once.
    assert found.narrow <= 2, (case, found)
    if case.kernel != "fold":
        assert found.wide > 0 or case.dim == 8, (case, found)  # whose rows are as short as that
        assert (found.matrix > 0) == (case.dtype != "fp32"), (case, found)

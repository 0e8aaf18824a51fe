"""The Triton kernels compiled for GPUs that are not here: no spills, tensor cores, wide loads."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from memattn.benchmarks.compiled import Case, cases, compiled

# What a program may ask for, of all GPUs that Triton compiles for: CUDA's programming guide, table
# of technical specifications, compute capabilities 8.6, 8.9 and 12.0, less the system's kilobyte.
MOST_SHARED = 99 * 1024
# Compiled in every run: every kernel and every capability, at sizes of real models.
FEW = [
    Case("forward", "bf16", 40, 77, "statistics", 90),
    Case("forward", "bf16", 40, 77, "everything", 90),
    Case("forward", "fp16", 64, 77, "statistics", 80),
    Case("forward", "bf16", 80, 333, "everything", 100),
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


@pytest.mark.parametrize("case", FEW, ids=name)
def test_kernels_keep_to_their_budget(case):
    check(case)


@pytest.mark.proof
@pytest.mark.parametrize("case", list(cases()), ids=name)
def test_every_kernel_keeps_to_its_budget(case):
    check(case)


def check(case):
    """No spills; tensor cores where they take the dtype; of loads all of 16 bytes."""
    found = compiled(case)
    assert found.spilled == 0, found
    assert found.shared <= MOST_SHARED, found
    assert found.narrow == 0, found
    if case.kernel != "fold":
        assert found.wide > 0, found
        assert (found.matrix > 0) == (case.dtype != "fp32"), found

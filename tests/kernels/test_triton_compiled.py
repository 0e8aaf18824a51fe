"""The Triton kernels compiled for GPUs that are not here: no spills, tensor cores, wide loads."""

import pytest

pytest.importorskip("triton", reason="triton is not installed")

from memattn.benchmarks.compiled import cases, compiled

# What a program may ask for, per compute capability: CUDA's programming guide, table of technical
# specifications, less the kilobyte that the system keeps.
MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
# Compiled in every run: every kernel and every capability, at sizes of real models.
FEW = {
    ("forward", "bf16", 40, 77, 90),
    ("forward", "fp16", 64, 77, 80),
    ("forward", "bf16", 80, 333, 100),
    ("forward", "fp32", 64, 333, 90),
    ("key_gradient", "bf16", 64, 333, 80),
    ("query_gradient", "fp16", 80, 333, 90),
    ("normalisers", "bf16", 128, 333, 90),
    ("columns", "bf16", 128, 333, 90),
    ("fold", "fp32", 8, 77, 90),
}


def name(case):
    return "-".join(map(str, case))


@pytest.mark.parametrize(
    "case", [case for case in cases() if (*case[:4], case.capability) in FEW], ids=name
)
def test_kernels_keep_to_their_budget(case):
    check(case)


@pytest.mark.proof
@pytest.mark.parametrize("case", list(cases()), ids=name)
def test_every_kernel_keeps_to_its_budget(case):
    check(case)


def check(case):
    """Within what the GPU has; tensor cores where they take the dtype, and wide loads."""
    found = compiled(case)
    assert found.spilled == 0, found
    assert found.shared <= MOST_SHARED[case.capability], found
    assert found.narrow == 0, found
    if case.kernel != "fold":
        assert found.wide > 0, found
        assert (found.matrix > 0) == (case.dtype != "fp32"), found

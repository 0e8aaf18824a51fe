"""Run the cpu kernels with the instruction set that the environment asks for, and name it.

Run as a program, in a process of its own: an instruction set is chosen once per process.
"""

import functools
import sys

import pytest
import torch

import memattn
from memattn import _extension
from tests.kernels import column_statistics
from tests.kernels.cross_attention import (
    DTYPES,
    assert_gradients_within_budget,
    assert_result_within_budget,
    extras,
    inputs,
)

# heads, queries, keys, dimension: whole vectors and every kind of rest of 4, 8 and 16 lanes.
SIZES = [
    (8, 1, 77, 40),
    (8, 5, 8, 8),
    (2, 63, 76, 16),
    (2, 64, 78, 24),
    (2, 65, 79, 88),
    (2, 250, 80, 64),
    (2, 66, 81, 72),
    (1, 67, 129, 160),
    (1, 70, 333, 256),
]

# What each set does in its own way at the ends of a range, in a vector's rest, or when it rounds.
FILES = [
    *(f"tests/kernels/test_cross_attention_{name}.py" for name in ("edges", "layouts", "rounding")),
    "tests/kernels/test_column_statistics_edges.py",
]


def check(shape, dtype, arguments):
    tensors = inputs(shape, dtype)
    attention = functools.partial(memattn.cross_attention, backend="cpu")
    result = attention(*tensors, **arguments)
    assert_result_within_budget(result, tensors, arguments)
    assert_result_within_budget(attention(*tensors, statistics=False), tensors, {})
    arguments.pop("token", None)
    assert_gradients_within_budget(attention, tensors, arguments)


def check_columns(shape, dtype, names):
    tensors, arguments = column_statistics.call_of(shape, dtype, names=names)
    result = memattn.column_statistics(*tensors, **arguments, backend="cpu")
    column_statistics.assert_result_within_budget(result, tensors, arguments)


if __name__ == "__main__":
    torch.manual_seed(0)
    for number, size in enumerate(SIZES):
        for dtype in DTYPES:
            shape = (2, *size)
            check(shape, dtype, extras(shape) if number % 2 else {})
            check_columns(shape, dtype, ("logsumexp", "key_bias", "token"))
            check_columns(shape, dtype, ("key_bias", "token") if number % 2 else ())
    # The packages are those of the process that asked, whatever pyproject.toml says.
    settings = ["--quiet", "--override-ini=pythonpath=", "-p", "no:cacheprovider", "-k", "cpu-cpu"]
    failed = pytest.main([*settings, *FILES])
    print(torch.ops.memattn.cpu_capability(), _extension.path("cpu"))
    sys.exit(failed)

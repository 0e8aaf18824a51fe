"""Run the Triton kernels in Triton's interpreter, on the CPU.

Run as a program, in a process of its own: Triton reads TRITON_INTERPRET when it is imported.
"""

import functools
import sys

import pytest
import torch

import memattn
from memattn.kernels.triton import backward, column_statistics, columns, forward
from memattn.kernels.triton.fold import fold
from tests.kernels.column_statistics import assert_result_within_budget as assert_columns_within
from tests.kernels.column_statistics import call_of
from tests.kernels.cross_attention import (
    assert_gradients_within_budget,
    assert_result_within_budget,
    extras,
    inputs,
)

DTYPES = [torch.float32, torch.float16]  # the interpreter has no bfloat16 arithmetic

# heads, queries, keys, dimension: one part and two of keys and of depth, one look and two, rows and
# keys beyond the end of their tiles, and sums of several programs.
SIZES = [
    (8, 5, 7, 8),
    (2, 70, 77, 40),
    (1, 300, 16, 24),
    (1, 65, 80, 160),
    (1, 33, 128, 72),
    (1, 66, 129, 16),
    (1, 33, 200, 88),
    (1, 20, 130, 256),
]

# Beside them, cut up as for GPUs with tensor memory: one look and two, by both kinds of tiles, and
# several tiles in one program.
WITH_TENSOR_MEMORY = [(1, 1056, 7, 40), (1, 40, 130, 64), (1, 40, 77, 80), (1, 20, 130, 256)]

# What is at the ends of a range; and with "everything", tables by hand, laws and how memory lies.
EDGES = ["cross_attention_edges", "column_statistics_edges"]
EVERYTHING = [
    *EDGES,
    "cross_attention",
    "cross_attention_layouts",
    "column_statistics",
    "column_statistics_layouts",
]


def check(shape, dtype, arguments):
    tensors = inputs(shape, dtype)
    attention = functools.partial(memattn.cross_attention, backend="triton")
    assert_result_within_budget(attention(*tensors, **arguments), tensors, arguments)
    assert_result_within_budget(attention(*tensors, statistics=False), tensors, {})
    names = ("logsumexp", "key_bias", "token") if arguments else ()
    arguments.pop("token", None)
    assert_gradients_within_budget(attention, tensors, arguments)
    tensors, arguments = call_of(shape, dtype, names=names)
    result = memattn.column_statistics(*tensors, **arguments, backend="triton")
    assert_columns_within(result, tensors, arguments)


def check_fold():
    """Sums of so many programs that they are folded block after block, one of them infinite."""
    partials = torch.rand(2, 1, 2, 100, 77)
    partials[1, 0, 1, 50, 7] = torch.inf
    for folded, parts in zip(fold(*partials), partials, strict=True):
        torch.testing.assert_close(folded.double(), parts.double().sum(2), rtol=2e-7, atol=0)


def main(files, only):
    torch.manual_seed(0)
    check_fold()
    for number, size in enumerate(SIZES):
        for dtype in DTYPES:
            shape = (2, *size)
            check(shape, dtype, extras(shape) if number % 2 else {})
    with pytest.MonkeyPatch.context() as patch:
        for module in (forward, backward, columns, column_statistics):
            patch.setattr(module, "has_tensor_memory", lambda _: True)
        for size in WITH_TENSOR_MEMORY:
            check((2, *size), torch.float16, {})
    # The packages are those of the process that asked, whatever pyproject.toml says. Numbers beyond
    # the largest are part of the tests; numpy, which computes here, warns about them.
    settings = ["--quiet", "--override-ini=pythonpath=", "-p", "no:cacheprovider"]
    tests = f"triton-cpu and not bfloat16 and not 20000{only}"
    settings += ["-W", "ignore::RuntimeWarning", "-k", tests]
    return pytest.main([*settings, *(f"tests/kernels/test_{name}.py" for name in files)])


if __name__ == "__main__":
    everything = sys.argv[1:] == ["everything"]
    # Of float32 77 keys are several tiles already, as 150 are.
    few = " and not float16 and not 150"
    failed = main(EVERYTHING, "") if everything else main(EDGES, few)
    print("interpreted")
    sys.exit(failed)

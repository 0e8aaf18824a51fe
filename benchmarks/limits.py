"""What this machine can do at best, measured here: the floor under every time."""

import functools
import time
from collections.abc import Callable

import torch

from memattn.benchmarks.cases import Case
from memattn.benchmarks.turns import synchronise

_COPY_BYTES = 2**28  # larger than the last-level cache
_MATMUL_SIDE = 2048
_TRIES = 10


def floor_seconds(case: Case) -> float:
    """The least time a case can take here: its bytes copied, or its products at full speed.

    Whichever is longer. On the CPU products count at the speed of float32, in which every kernel of
    memattn computes whatever the inputs; torch's own may multiply bf16 directly and go below. A
    layer that stays in the cache between two calls is not bound by memory, and can go below too.
    """
    compute = torch.float32 if case.device == "cpu" else case.dtype
    moved = case.shape.bytes(case.dtype) / copy_bandwidth(case.device)
    return max(moved, case.shape.flops / matmul_speed(case.device, compute))


@functools.cache
def copy_bandwidth(device: str) -> float:
    """Bytes per second of a large copy, what is read and what is written both counted."""
    source = torch.ones(_COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _least(lambda: target.copy_(source), device)


@functools.cache
def matmul_speed(device: str, dtype: torch.dtype) -> float:
    """Operations per second of a large matrix product."""
    left = torch.ones(_MATMUL_SIDE, _MATMUL_SIDE, dtype=dtype, device=device)
    product = torch.empty_like(left)
    return 2 * _MATMUL_SIDE**3 / _least(lambda: torch.mm(left, left, out=product), device)


def _least(call: Callable[[], object], device: str) -> float:
    """The shortest of several calls: a limit is what was reached once."""
    times = []
    for _ in range(_TRIES):
        synchronise(device)
        start = time.perf_counter()
        call()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)

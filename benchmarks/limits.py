"""What a large copy and a large matrix product reach on this machine, and what a case would take.

A yardstick, not a floor: a layer that stays in the cache between two calls is not bound by memory,
and no product of a layer's shape is as fast as a large square one.
"""

from collections.abc import Callable, Mapping

import torch

from memattn.benchmarks.cases import DTYPES
from memattn.benchmarks.turns import wall_seconds

# Larger than the last-level cache, and long enough that starting them does not count.
_COPY_BYTES = {"cpu": 2**28, "cuda": 2**31}
_MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
_TRIAL_SIDE = {"cpu": 256, "cuda": 2048}
_TRIES = 5
# Without fp16 on the CPU, where torch takes a minute for one product and memattn computes in fp32.
_MULTIPLIED = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}


def limits(device: str) -> dict[str, float]:
    """Bytes per second of a copy ("copy"), and operations per second of a product, by dtype.

    Dtypes that are slower than float32, as on a processor without instructions for them, are left
    out: they would take minutes, and `limit_seconds` would not count them.
    """
    side = _TRIAL_SIDE[device]
    trial = {name: matmul_speed(device, DTYPES[name], side) for name in _MULTIPLIED[device]}
    fast = [name for name, speed in trial.items() if speed >= trial["fp32"]]
    side = _MATMUL_SIDE[device]
    return {
        "copy": copy_bandwidth(device),
        **{name: matmul_speed(device, DTYPES[name], side) for name in fast},
    }


def limit_seconds(moved: int, flops: int, dtype: str, reached: Mapping[str, float]) -> float:
    """What a case would take at these limits: copying or multiplying, whichever is longer.

    Args:
        moved: Bytes of query, key, value and output.
        flops: Operations of the two products.
        dtype: The case's; products count at its speed or at that of fp32, whichever is faster.
        reached: What `limits` gave.
    """
    return max(moved / reached["copy"], flops / max(reached["fp32"], reached.get(dtype, 0.0)))


def copy_bandwidth(device: str) -> float:
    """Bytes per second of a large copy, what is read and what is written both counted."""
    source = torch.ones(_COPY_BYTES[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _least(lambda: target.copy_(source), device)


def matmul_speed(device: str, dtype: torch.dtype, side: int) -> float:
    """Operations per second of a product of square matrices."""
    # Random: a GPU multiplies equal numbers faster, because fewer transistors switch. Drawn on the
    # CPU: torch's generator of the GPU does not survive a capture that failed.
    left = torch.randn(side, side).to(device, dtype)
    product = torch.empty_like(left)
    return 2 * side**3 / _least(lambda: torch.mm(left, left, out=product), device)


def _least(call: Callable[[], object], device: str) -> float:
    """The shortest of several calls: a limit is what was reached once."""
    return min(wall_seconds(call, device) for _ in range(_TRIES))

"""What was promised before there was a kernel, and whether it is kept."""

import statistics
from collections.abc import Callable
from typing import NamedTuple

from memattn.benchmarks.ratios import JointRow, Ratio, Row, clocks, joint_rows, rows
from memattn.benchmarks.results import Clock, PairedRatio, Results


class Target(NamedTuple):
    """A promise about one column.

    Attributes:
        column: Name of a field of `Row` or `JointRow`.
        text: What is compared.
        limit: The geometric mean may not be above it; None where nothing was promised.
        worst: No single case may be above it; None if that was not promised.
        applies: Which rows it is about.
        clock: Which times it is about.
    """

    column: str
    text: str
    limit: float | None
    worst: float | None
    applies: Callable[[Row], bool]
    clock: Clock = "eager"


class Verdict(NamedTuple):
    """Geometric mean and worst case of the rows a target is about; None without a limit."""

    target: Target
    mean: float
    worst: float
    worst_case: str
    is_met: bool | None


def _any(row: Row) -> bool:
    return True


def _short_prompt(row: Row) -> bool:
    return row.timing.keys == 77


def _large(row: Row) -> bool:
    return row.timing.bytes >= 5e6


_WITHOUT = "the same backend without statistics"
_FASTEST = "the fastest plain attention, 77 tokens"
_SUMS = "the fastest softmax with explicit sums"
_MASS = "the fastest with flash-colreduce"
_LIMIT = "a copy or a product, layers from 5 MB"


def _on_gpu(clock: Clock) -> tuple[Target, ...]:
    """Kernel time was promised; what a program waits for is shown beside it."""
    is_kernel = clock != "eager"

    def promised(limit: float) -> float | None:
        return limit if is_kernel else None

    shown = (
        Target("without", _WITHOUT, promised(1.05), None, _any, clock),
        Target("fastest", _FASTEST, promised(1.00), None, _short_prompt, clock),
        Target("mass", _MASS, promised(0.55), None, _any, clock),
        Target("sums", _SUMS, promised(0.20), None, _any, clock),
    )
    # From a warm cache, no byte has to come from memory.
    memory = Target("limit", _LIMIT, 1.6, None, _large, clock)
    return (*shown, memory) if clock == "cold" else shown


# Plain attention was promised to be beaten at 77 tokens only, and nothing was promised on the CPU
# of its fastest kernel.
_TARGETS = {
    "cpu": (
        Target("without", _WITHOUT, 1.05, None, _any),
        Target("sdpa", "torch's attention, 77 tokens", 0.70, 0.90, _short_prompt),
        Target("fastest", _FASTEST, None, None, _short_prompt),
        Target("sums", _SUMS, 0.35, None, _any),
        Target("limit", _LIMIT, 1.6, None, _large),
    ),
    "cuda": (*_on_gpu("eager"), *_on_gpu("warm"), *_on_gpu("cold")),
}
# Joint attention with the text's statistics by the fastest without, on any clock but the host's.
_JOINT_LIMIT = 1.06
# Recorded by stock: the upper end of the 95 % interval may not be above it.
_RECORDING_LIMITS = {"whole denoiser": 1.01, "cross-attention layers": 0.95}


def sdpa_limit(device: str) -> float | None:
    """The promised ratio to torch's default attention on "cpu" or "cuda"; None without promise."""
    limits = [target.limit for target in _TARGETS.get(device, ()) if target.column == "sdpa"]
    return limits[0] if limits else None


def verdicts(results: Results) -> list[Verdict]:
    """How a run of the kernels stands to the targets; those about no row are left out.

    Where memattn failed a case, no target is met.
    """
    table = {clock: rows(results, clock) for clock in clocks(results)}
    found = []
    for target in _TARGETS.get(results.machine["device_type"], ()):
        about = [row for row in table.get(target.clock, ()) if target.applies(row)]
        ratios: dict[Row | JointRow, Ratio] = {
            row: value for row in about if (value := getattr(row, target.column)) is not None
        }
        if ratios:
            found.append(_verdict(target, ratios, failed=bool(results.failed_cases)))
    return found


def joint_verdicts(results: Results) -> list[Verdict]:
    """How a run of joint attention stands to its target, on each clock; as `verdicts`."""
    found = []
    for clock in clocks(results):
        limit = None if clock == "eager" else _JOINT_LIMIT
        target = Target("without", "the fastest attention without", limit, None, _any, clock)
        ratios: dict[Row | JointRow, Ratio] = {
            row: row.without for row in joint_rows(results, clock)
        }
        if ratios:
            found.append(_verdict(target, ratios, failed=bool(results.failed_cases)))
    return found


def _verdict(target: Target, ratios: dict[Row | JointRow, Ratio], *, failed: bool) -> Verdict:
    mean = statistics.geometric_mean(ratio.median for ratio in ratios.values())
    worst = max(ratios, key=lambda row: ratios[row].median)
    highest = ratios[worst].median
    is_met = None
    if target.limit is not None:
        is_met = mean <= target.limit and (target.worst is None or highest <= target.worst)
        is_met = is_met and not failed
    return Verdict(target, mean, highest, f"{worst.timing.shape} {worst.timing.dtype}", is_met)


def recording_verdict(pair: PairedRatio) -> str:
    """What was promised of recording, and whether it is kept; empty where nothing was."""
    limit = _RECORDING_LIMITS.get(pair.what)
    if limit is None:
        return ""
    return f"{limit:.2f}, {'met' if pair.ratio_high <= limit else 'missed'}"

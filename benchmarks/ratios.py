"""From times to ratios. Lower is better throughout."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from memattn.benchmarks.limits import limit_seconds
from memattn.benchmarks.results import Clock, Results, Timing
from memattn.errors import InputError
from memattn.ops.dispatch import BACKENDS


class Ratio(NamedTuple):
    """One provider's time by another's: the turns' median, and between what half of them lie."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """One case of cross-attention on one clock: memattn with statistics against everybody.

    Attributes:
        timing: Of memattn with statistics.
        microseconds: Its median on this clock.
        sdpa: By torch's default choice of plain attention.
        fastest: By the fastest plain attention on this machine.
        fastest_name: Which one that is.
        sums: By the fastest way to have output and statistics without memattn.
        without: By the same backend without statistics.
        limit: By what copying its bytes or a large product of as many operations would take.
        mass: By the fastest attention with flash-colreduce beside it; None if that was not timed.
    """

    timing: Timing
    microseconds: float
    sdpa: Ratio
    fastest: Ratio
    fastest_name: str
    sums: Ratio
    without: Ratio
    limit: Ratio
    mass: Ratio | None


class JointRow(NamedTuple):
    """One case of joint attention on one clock.

    Attributes:
        timing: Of the fastest attention with the text's statistics.
        microseconds: Its median on this clock.
        without: By the fastest attention without.
        without_name: Which one that is.
    """

    timing: Timing
    microseconds: float
    without: Ratio
    without_name: str


def clocks(results: Results) -> tuple[Clock, ...]:
    """What a run was timed on: on a GPU, kernels are timed without the host as well."""
    if any(timing.warm_us for timing in results.timings):
        return ("eager", "warm", "cold")
    return ("eager",)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of two providers' times, turn by turn."""
    turns = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    low, median, high = statistics.quantiles(turns, n=4, method="inclusive")
    return Ratio(median, low, high)


def rows(results: Results, clock: Clock = "eager") -> list[Row]:
    """The ratios of every case of cross-attention, in the file's order.

    Cases that one of memattn's providers failed are left out: what is left need not be what `auto`
    takes.

    Args:
        results: A run of the kernels. Of several backends of memattn in one case, the one that
            `backend="auto"` takes is judged.
        clock: Which times. Who has none on it is left out.

    Raises:
        InputError: If a case lacks a provider that the table needs.
    """
    limits = results.machine["limits"]
    return [_row(case, clock, limits) for case in _cases(results, clock) if not case[0].text]


def joint_rows(results: Results, clock: Clock = "eager") -> list[JointRow]:
    """The ratios of every case of joint attention, in the file's order; arguments as for `rows`.

    Raises:
        InputError: If a case lacks attention with statistics, or without.
    """
    return [_joint_row(case, clock) for case in _cases(results, clock) if case[0].text]


def _cases(results: Results, clock: Clock) -> list[list[Timing]]:
    """The timings of each case that there are on a clock."""
    cases: dict[tuple[str, str], list[Timing]] = defaultdict(list)
    for timing in results.timings:
        if timing.on(clock) and f"{timing.shape}-{timing.dtype}" not in results.failed_cases:
            cases[timing.shape, timing.dtype].append(timing)
    return list(cases.values())


def _row(timings: list[Timing], clock: Clock, limits: Mapping[str, float]) -> Row:
    by_name = {timing.provider: timing for timing in timings}
    backends = [name for name in BACKENDS if f"memattn_{name}" in by_name]
    plain, sums, mass = (_giving(timings, kind) for kind in ("plain", "sums", "mass"))
    if not (backends and sums and {"sdpa", f"memattn_{backends[0]}_without"} <= set(by_name)):
        raise _incomplete(
            timings, "memattn with statistics and without, sdpa, and a softmax with explicit sums"
        )
    ours = by_name[f"memattn_{backends[0]}"]
    turns = ours.on(clock)
    seconds = limit_seconds(ours.bytes, ours.flops, ours.dtype, limits)
    fastest, fastest_name = _by_fastest(ours, plain, clock)
    return Row(
        timing=ours,
        microseconds=statistics.median(turns),
        sdpa=ratio(turns, by_name["sdpa"].on(clock)),
        fastest=fastest,
        fastest_name=fastest_name,
        sums=_by_fastest(ours, sums, clock)[0],
        without=ratio(turns, by_name[f"{ours.provider}_without"].on(clock)),
        limit=ratio(turns, [seconds * 1e6] * len(turns)),
        mass=_by_fastest(ours, mass, clock)[0] if mass else None,
    )


def _joint_row(timings: list[Timing], clock: Clock) -> JointRow:
    ours, plain = (_giving(timings, kind) for kind in ("with statistics", "plain"))
    if not (ours and plain):
        raise _incomplete(timings, "attention with the text's statistics, and without")
    best = min(ours, key=lambda timing: _by_fastest(timing, plain, clock)[0].median)
    without, name = _by_fastest(best, plain, clock)
    return JointRow(best, statistics.median(best.on(clock)), without, name)


def _giving(timings: list[Timing], kind: str) -> list[Timing]:
    return [timing for timing in timings if timing.gives == kind]


def _by_fastest(ours: Timing, others: list[Timing], clock: Clock) -> tuple[Ratio, str]:
    """The ratio to the one whose time is least beside ours in the same turns, and its name."""
    found = [(ratio(ours.on(clock), other.on(clock)), other.provider) for other in others]
    return max(found, key=lambda each: each[0].median)


def _incomplete(timings: list[Timing], expected: str) -> InputError:
    names = ", ".join(timing.provider for timing in timings)
    return InputError(
        f"got {timings[0].shape} in {timings[0].dtype} with only {names}, expected {expected}."
    )

"""From times to ratios, and from ratios to verdicts. Lower is better throughout."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from memattn.benchmarks.limits import limit_seconds
from memattn.benchmarks.results import PairedRatio, Results, Timing
from memattn.errors import InputError
from memattn.ops.dispatch import BACKENDS


class Ratio(NamedTuple):
    """One provider's time by another's: the turns' median, and between what half of them lie."""

    median: float
    low: float
    high: float


class Row(NamedTuple):
    """One case: memattn with statistics against everybody.

    Attributes:
        timing: Of memattn with statistics.
        sdpa: By torch's default choice of plain attention.
        fastest: By the fastest plain attention on this machine.
        fastest_name: Which one that is.
        sums: By the fastest way to have output and statistics without memattn.
        without: By the same backend without statistics.
        limit: By what copying its bytes or a large product of as many operations would take.
    """

    timing: Timing
    sdpa: Ratio
    fastest: Ratio
    fastest_name: str
    sums: Ratio
    without: Ratio
    limit: Ratio


class Target(NamedTuple):
    """A promise about one column.

    Attributes:
        column: Name of a field of `Row`.
        text: What is compared.
        limit: The geometric mean may not be above it; None where nothing was promised.
        worst: No single case may be above it; None if that was not promised.
        applies: Which rows it is about.
    """

    column: str
    text: str
    limit: float | None
    worst: float | None
    applies: Callable[[Row], bool]


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


# Set before there was a kernel. Plain attention was promised to be beaten at 77 tokens only, and
# nothing was promised on the CPU of its fastest kernel.
_TARGETS = {
    "cpu": (
        Target("without", "the same backend without statistics", 1.05, None, _any),
        Target("sdpa", "torch's attention, 77 tokens", 0.70, 0.90, _short_prompt),
        Target("fastest", "the fastest plain attention, 77 tokens", None, None, _short_prompt),
        Target("sums", "the fastest softmax with explicit sums", 0.35, None, _any),
        Target("limit", "a copy or a product, layers from 5 MB", 1.6, None, _large),
    ),
}
# Recorded by stock: the upper end of the 95 % interval may not be above it.
_RECORDING_LIMITS = {"whole denoiser": 1.01, "cross-attention layers": 0.95}


def sdpa_limit(device: str) -> float | None:
    """The promised ratio to torch's default attention on "cpu" or "cuda"; None without promise."""
    limits = [target.limit for target in _TARGETS.get(device, ()) if target.column == "sdpa"]
    return limits[0] if limits else None


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ratio of two providers' times, turn by turn."""
    turns = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    low, median, high = statistics.quantiles(turns, n=4, method="inclusive")
    return Ratio(median, low, high)


def rows(results: Results) -> list[Row]:
    """The ratios of every case, in the file's order.

    Args:
        results: A run of the kernels. Of several backends of memattn in one case, the one that
            `backend="auto"` takes is judged.

    Raises:
        InputError: If a case lacks a provider that the table needs.
    """
    cases: dict[tuple[str, str], list[Timing]] = defaultdict(list)
    for timing in results.timings:
        cases[timing.shape, timing.dtype].append(timing)
    return [_row(timings, results.machine["limits"]) for timings in cases.values()]


def _row(timings: list[Timing], limits: Mapping[str, float]) -> Row:
    by_name = {timing.provider: timing for timing in timings}
    backends = [name for name in BACKENDS if f"memattn_{name}" in by_name]
    plain = [timing for timing in timings if timing.gives == "plain"]
    sums = [timing for timing in timings if timing.gives == "sums"]
    if not (backends and sums and {"sdpa", f"memattn_{backends[0]}_without"} <= set(by_name)):
        raise InputError(
            f"got {timings[0].shape} in {timings[0].dtype} with only {', '.join(by_name)}, "
            "expected memattn with statistics and without, sdpa, and a softmax with explicit sums."
        )
    ours = by_name[f"memattn_{backends[0]}"]
    seconds = limit_seconds(ours.bytes, ours.flops, ours.dtype, limits)

    def against(other: Timing) -> Ratio:
        return ratio(ours.turns_us, other.turns_us)

    # whose time is least beside ours in the same turns
    fastest = max(plain, key=lambda timing: against(timing).median)
    best_sums = max(sums, key=lambda timing: against(timing).median)
    return Row(
        timing=ours,
        sdpa=against(by_name["sdpa"]),
        fastest=against(fastest),
        fastest_name=fastest.provider,
        sums=against(best_sums),
        without=against(by_name[f"{ours.provider}_without"]),
        limit=ratio(ours.turns_us, [seconds * 1e6] * len(ours.turns_us)),
    )


def verdicts(table: Sequence[Row], device: str) -> list[Verdict]:
    """How the table stands to the targets of "cpu" or "cuda"; those about no row are left out."""
    found = []
    for target in _TARGETS.get(device, ()):
        ratios = {row: getattr(row, target.column).median for row in table if target.applies(row)}
        if not ratios:
            continue
        mean = statistics.geometric_mean(ratios.values())
        worst = max(ratios, key=lambda row: ratios[row])
        is_met = None
        if target.limit is not None:
            is_met = mean <= target.limit
            is_met = is_met and (target.worst is None or ratios[worst] <= target.worst)
        name = f"{worst.timing.shape} {worst.timing.dtype}"
        found.append(Verdict(target, mean, ratios[worst], name, is_met))
    return found


def recording_verdict(pair: PairedRatio) -> str:
    """What was promised of recording, and whether it is kept; empty where nothing was."""
    limit = _RECORDING_LIMITS.get(pair.what)
    if limit is None:
        return ""
    return f"{limit:.2f}, {'met' if pair.ratio_high <= limit else 'missed'}"

"""From times to ratios, and from ratios to verdicts. Lower is better throughout."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

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
        fastest: By the fastest plain attention on this machine.
        fastest_name: Which one that is.
        sdpa: By torch's default choice of plain attention.
        sums: By the fastest way to have output and statistics without memattn.
        without: By the same backend without statistics.
        floor: By the least time the machine could take.
    """

    timing: Timing
    fastest: Ratio
    fastest_name: str
    sdpa: Ratio
    sums: Ratio
    without: Ratio
    floor: float


class Target(NamedTuple):
    """A promise about one column.

    Attributes:
        column: Name of a field of `Row`.
        text: What is compared.
        limit: The geometric mean may not be above it.
        worst: No single case may be above it; None if that was not promised.
        applies: Which rows it is about.
    """

    column: str
    text: str
    limit: float
    worst: float | None
    applies: Callable[[Row], bool]


class Verdict(NamedTuple):
    """How a target was met: geometric mean and worst case of the rows it is about."""

    target: Target
    mean: float
    worst: float
    worst_case: str
    is_met: bool


def _any(row: Row) -> bool:
    return True


def _short_prompt(row: Row) -> bool:
    return row.timing.keys == 77


def _large(row: Row) -> bool:
    return row.timing.bytes >= 5e6


# Set before there was a kernel. Plain attention was promised to be beaten at 77 tokens only.
_TARGETS = {
    "cpu": (
        Target("without", "the same backend without statistics", 1.05, None, _any),
        Target("sdpa", "scaled_dot_product_attention, 77 tokens", 0.70, 0.90, _short_prompt),
        Target("sums", "the fastest softmax with explicit sums", 0.35, None, _any),
        Target("floor", "the machine's floor, layers of 5 MB and more", 1.6, None, _large),
    ),
    "cuda": (
        Target("without", "the same backend without statistics", 1.05, None, _any),
        Target("fastest", "the fastest plain attention, 77 tokens", 1.00, None, _short_prompt),
        Target("sums", "the fastest softmax with explicit sums", 0.20, None, _any),
        Target("floor", "the machine's floor, layers of 5 MB and more", 1.6, None, _large),
    ),
}
# Recorded by stock: the upper end of the 95 % interval may not be above it.
_RECORDING_LIMITS = {"whole denoiser": 1.01, "cross-attention layers": 0.95}


def sdpa_limit(device: str) -> float | None:
    """The promised ratio to torch's default attention on "cpu" or "cuda"; None without promise."""
    limits = [target.limit for target in _TARGETS[device] if target.column == "sdpa"]
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
    return [_row(shape, dtype, timings) for (shape, dtype), timings in cases.items()]


def _row(shape: str, dtype: str, timings: list[Timing]) -> Row:
    by_name = {timing.provider: timing for timing in timings}
    backends = [name for name in BACKENDS if f"memattn_{name}" in by_name]
    plain = [timing for timing in timings if timing.gives == "plain"]
    sums = [timing for timing in timings if timing.gives == "sums"]
    if not (backends and sums and {"sdpa", f"memattn_{backends[0]}_plain"} <= set(by_name)):
        raise InputError(
            f"got {shape} in {dtype} with only {', '.join(by_name)}, expected memattn with "
            "statistics and without, sdpa, and a softmax with explicit sums."
        )
    ours = by_name[f"memattn_{backends[0]}"]
    fastest = min(plain, key=lambda timing: timing.median_us)
    best_sums = min(sums, key=lambda timing: timing.median_us)

    def against(other: Timing) -> Ratio:
        return ratio(ours.turns_us, other.turns_us)

    return Row(
        timing=ours,
        fastest=against(fastest),
        fastest_name=fastest.provider,
        sdpa=against(by_name["sdpa"]),
        sums=against(best_sums),
        without=against(by_name[f"{ours.provider}_plain"]),
        floor=ours.median_us / ours.floor_us,
    )


def value(row: Row, column: str) -> float:
    """A column's number: the median where it is a ratio."""
    held = getattr(row, column)
    return held.median if isinstance(held, Ratio) else float(held)


def geometric_mean(values: Iterable[float]) -> float:
    """The mean under which a ratio and its inverse cancel."""
    return statistics.geometric_mean(values)


def verdicts(table: Sequence[Row], device: str) -> list[Verdict]:
    """How the table stands to the targets of "cpu" or "cuda"; those about no row are left out."""
    found = []
    for target in _TARGETS[device]:
        judged = [row for row in table if target.applies(row)]
        if not judged:
            continue
        column = target.column
        mean = geometric_mean(value(row, column) for row in judged)
        worst = max(judged, key=lambda row: value(row, column))
        highest = value(worst, column)
        is_met = mean <= target.limit and (target.worst is None or highest <= target.worst)
        name = f"{worst.timing.shape} {worst.timing.dtype}"
        found.append(Verdict(target, mean, highest, name, is_met))
    return found


def recording_verdict(pair: PairedRatio) -> str:
    """What was promised of recording, and whether it is kept; empty where nothing was."""
    limit = _RECORDING_LIMITS.get(pair.what)
    if limit is None:
        return ""
    return f"{limit:.2f}, {'met' if pair.ratio_high <= limit else 'missed'}"


def recording_memory(pairs: Sequence[PairedRatio]) -> list[str]:
    """A sentence on every denoiser whose memory was measured."""
    return [
        f"{pair.denoiser}, {pair.dtype}: recorded, {pair.extra_peak_bytes / 1e6:.2f} MB more were "
        f"in use at the peak; the record holds {pair.record_bytes / 1e6:.2f} MB."
        for pair in pairs
        if pair.extra_peak_bytes is not None and pair.record_bytes is not None
    ]

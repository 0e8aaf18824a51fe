"""A run as tables and sentences, which the terminal and the README show alike."""

import statistics
from typing import NamedTuple

from memattn.benchmarks.ratios import Ratio, Row, Verdict, recording_verdict, rows, verdicts
from memattn.benchmarks.results import PairedRatio, Results


class Table(NamedTuple):
    """A table of text.

    Attributes:
        header: Names of the columns; a newline where a narrow page may break one.
        rows: Cells.
        right: Positions of the columns that are aligned to the right.
    """

    header: list[str]
    rows: list[list[str]]
    right: range


# By the field of a row: what its ratios are to, and whether their spread is shown.
_COLUMNS = {
    "sdpa": ("by torch's\nattention", True),
    "fastest": ("by fastest\nplain", False),
    "sums": ("by sums", False),
    "without": ("by itself\nwithout", True),
    "limit": ("by copy,\nproduct", False),
}


def tables(results: Results) -> list[Table]:
    """The ratios of a run, and how they stand to the targets."""
    if results.paired:
        header = ["denoiser", "changed / stock", "dtype", "ratio\n(95 % interval)", "target"]
        return [Table(header, [_pair(pair) for pair in results.paired], range(3, 4))]
    ratios = rows(results)
    made = [_ratios(ratios)]
    judged = [_verdict(verdict) for verdict in verdicts(ratios, results.machine["device_type"])]
    if judged:
        header = ["with statistics, by", "mean", "worst", "target", ""]
        made.append(Table(header, judged, range(1, 2)))
    return made


def notes(results: Results) -> list[str]:
    """What has to be said beside the tables."""
    if results.paired:
        return [_memory(pair) for pair in results.paired if pair.extra_peak_bytes is not None]
    backends = ", ".join(dict.fromkeys(row.timing.provider for row in rows(results)))
    return [
        f"{backends} with statistics by others, lower is better: median over the turns, and in "
        "brackets between what half of them lie; means are geometric. Sums: the faster of torch's "
        "attention with a softmax and its sums beside it, and of attention and sums from one "
        "softmax. Copy, product: what copying the layer's bytes takes here, or as many operations "
        "of a large matrix product, whichever is longer; a layer in the cache can be faster."
    ]


def where(results: Results) -> str:
    """Where and with what a run was measured."""
    machine = results.machine
    capability = f", {machine['cpu_capability']}" if machine["device_type"] == "cpu" else ""
    return (
        f"{machine['device']}, {machine['threads']} threads{capability}, torch {machine['torch']}, "
        f"memattn {machine['memattn']}, commit {machine['commit']}, {results.date}"
    )


def _ratios(table: list[Row]) -> Table:
    header = ["layer", "dtype", "us", *(name for name, _ in _COLUMNS.values())]
    lines = [_case(row) for row in table]
    for name, summary in (("mean", statistics.geometric_mean), ("worst", max)):
        medians = [[getattr(row, column).median for row in table] for column in _COLUMNS]
        lines.append([name, "", "", *(f"{summary(values):.2f}" for values in medians)])
    return Table(header, lines, range(2, len(header)))


def _case(row: Row) -> list[str]:
    cells = {name: _ratio(getattr(row, name), spread) for name, (_, spread) in _COLUMNS.items()}
    # without the word that most of these names share
    cells["fastest"] += " " + row.fastest_name.removeprefix("sdpa_")
    microseconds = f"{statistics.median(row.timing.turns_us):.0f}"
    return [row.timing.shape, row.timing.dtype, microseconds, *cells.values()]


def _ratio(ratio: Ratio, spread: bool) -> str:
    return f"{ratio.median:.2f}" + (f" ({ratio.low:.2f}-{ratio.high:.2f})" if spread else "")


def _verdict(verdict: Verdict) -> list[str]:
    target = verdict.target
    limit = "" if target.limit is None else f"{target.limit:.2f}"
    if target.worst is not None:
        limit += f", worst {target.worst:.2f}"
    met = {None: "", True: "met", False: "missed"}[verdict.is_met]
    worst = f"{verdict.worst:.2f} {verdict.worst_case}"
    return [target.text, f"{verdict.mean:.2f}", worst, limit, met]


def _pair(pair: PairedRatio) -> list[str]:
    interval = f"{pair.ratio:.3f} ({pair.ratio_low:.3f}-{pair.ratio_high:.3f})"
    return [pair.denoiser, pair.what, pair.dtype, interval, recording_verdict(pair)]


def _memory(pair: PairedRatio) -> str:
    return (
        f"{pair.denoiser}, {pair.dtype}: recorded by the {pair.backend} backend, at the peak "
        f"{(pair.extra_peak_bytes or 0) / 1e6:.2f} MB more were in use in torch's allocator; the "
        f"record holds {(pair.record_bytes or 0) / 1e6:.2f} MB."
    )

"""The tables of a run on a GPU: every time three times, and ratios of kernel times."""

import statistics
from collections.abc import Sequence
from typing import TypeVar

from memattn.benchmarks.ratios import JointRow, Ratio, Row, clocks, joint_rows, rows
from memattn.benchmarks.results import Clock, Results
from memattn.benchmarks.table import Table, ratio_cell, short_name, verdict_cells
from memattn.benchmarks.targets import Verdict

AnyRow = TypeVar("AnyRow", Row, JointRow)

CLOCKS: dict[Clock, str] = {
    "eager": "call and wait",
    "warm": "warm cache",
    "cold": "cold cache",
}
# By the field of a row: what its ratios are to, on a warm cache and on a cold one.
_COLUMNS = {
    "fastest": "by fastest\nplain",
    "mass": "by it and\ncolreduce",
    "sums": "by sums",
    "without": "by itself\nwithout",
}


def gpu_tables(results: Results) -> list[Table]:
    """Microseconds of memattn and of the fastest plain attention, and the ratios."""
    by_clock = {clock: _by_case(rows(results, clock)) for clock in CLOCKS}
    return [_times(by_clock), _ratios(by_clock["warm"], by_clock["cold"])]


def joint_table(results: Results) -> Table:
    """The fastest attention with the text's statistics by the fastest without, on every clock."""
    measured = clocks(results)
    by_clock = {clock: _by_case(joint_rows(results, clock)) for clock in measured}
    header = ["layer", "dtype"]
    for clock in measured:
        header += [f"us,\n{CLOCKS[clock]}", "by plain"]
    lines = []
    for case in by_clock["eager"]:
        line = list(case)
        for clock in measured:
            row = by_clock[clock].get(case)
            line += ["", ""] if row is None else [_time(row.microseconds), _joint_ratio(row)]
        lines.append(line)
    return Table(header, lines, range(2, len(header)))


def clock_verdicts(judged: Sequence[Verdict], title: str) -> Table:
    """How a run stands to its targets, with the times each is about."""
    lines = []
    for verdict in judged:
        text, *others = verdict_cells(verdict)
        lines.append([text, CLOCKS[verdict.target.clock], *others])
    return Table([title, "time", "mean", "worst", "target", ""], lines, range(2, 3))


def gpu_notes(results: Results) -> list[str]:
    """What has to be said of the times on a GPU."""
    found = [
        "Times are microseconds. Call and wait: one call from Python until the GPU is done. Warm "
        "and cold cache: replays of a CUDA graph of many such calls, without the host; all have "
        "the same inputs, or each has its own, and together they move three times what the cache "
        "holds."
    ]
    if not results.is_joint:
        found[0] += (
            " Two numbers in a cell are ratios of times with a warm and with a cold cache; by "
            "copy, product is with a cold one."
        )
    node = results.machine.get("node_us")
    if node is not None:
        found.append(
            f"A kernel with nothing to do takes {_time(node)} us in such a graph on this machine, "
            "and each kernel of a call takes as much beside what it computes."
        )
    refused = {
        f"{timing.provider} ({timing.not_captured})"
        for timing in results.timings
        if timing.not_captured
    }
    if refused:
        found.append(f"Could not be captured in a CUDA graph: {'; '.join(sorted(refused))}.")
    return found


def _by_case(table: Sequence[AnyRow]) -> dict[tuple[str, str], AnyRow]:
    return {(row.timing.shape, row.timing.dtype): row for row in table}


def _times(by_clock: dict[Clock, dict[tuple[str, str], Row]]) -> Table:
    names = ("call and\nwait", "warm\ncache", "cold\ncache")
    header = ["layer", "dtype", *(f"memattn\n{name}" for name in names)]
    header += [f"plain\n{name}" for name in names]
    lines = []
    for case in by_clock["eager"]:
        found = [by_clock[clock].get(case) for clock in CLOCKS]
        ours = ["" if row is None else _time(row.microseconds) for row in found]
        plain = ["" if row is None else _plain(row) for row in found]
        lines.append([*case, *ours, *plain])
    return Table(header, lines, range(2, len(header)))


def _ratios(warm: dict[tuple[str, str], Row], cold: dict[tuple[str, str], Row]) -> Table:
    header = ["layer", "dtype", *_COLUMNS.values(), "by copy,\nproduct"]
    lines = [
        [
            *case,
            *(_both(getattr(row, name), getattr(cold[case], name)) for name in _COLUMNS),
            ratio_cell(cold[case].limit),
        ]
        for case, row in warm.items()
        if case in cold
    ]
    for name, summary in (("mean", statistics.geometric_mean), ("worst", max)):
        cells = []
        for column in _COLUMNS:
            sides = [
                [ratio.median for row in side.values() if (ratio := getattr(row, column))]
                for side in (warm, cold)
            ]
            cells.append(", ".join(f"{summary(side):.2f}" for side in sides if side))
        limits = [row.limit.median for row in cold.values()]
        lines.append([name, "", *cells, f"{summary(limits):.2f}" if limits else ""])
    return Table(header, lines, range(2, len(header)))


def _both(warm: Ratio | None, cold: Ratio | None) -> str:
    return ", ".join(filter(None, (ratio_cell(warm), ratio_cell(cold))))


def _plain(row: Row) -> str:
    return f"{_time(row.microseconds / row.fastest.median)} {short_name(row.fastest_name)}"


def _joint_ratio(row: JointRow) -> str:
    return f"{ratio_cell(row.without)} {short_name(row.without_name)}"


def _time(microseconds: float) -> str:
    return f"{microseconds:.1f}" if microseconds < 100 else f"{microseconds:.0f}"

"""A run as tables and sentences, which the terminal and the README show alike."""

import statistics
from collections import defaultdict

from memattn.benchmarks.gpu_tables import clock_verdicts, gpu_notes, gpu_tables, joint_table
from memattn.benchmarks.ratios import Row, clocks, joint_rows, rows
from memattn.benchmarks.results import PairedRatio, Results
from memattn.benchmarks.table import Table, ratio_cell, short_name, verdict_cells
from memattn.benchmarks.targets import joint_verdicts, recording_verdict, verdicts

# By the field of a row: what its ratios are to, and whether their spread is shown.
_COLUMNS = {
    "sdpa": ("by torch's\nattention", True),
    "fastest": ("by fastest\nplain", False),
    "sums": ("by sums", False),
    "without": ("by itself\nwithout", True),
    "limit": ("by copy,\nproduct", False),
}
_TITLE = "with statistics, by"
_LAYERS = "cross-attention layers"


def tables(results: Results) -> list[Table]:
    """The ratios of a run, and how they stand to the targets."""
    if results.paired:
        header = ["denoiser", "changed / stock", "dtype", "ratio\n(95 % interval)", "target"]
        is_gpu = results.machine["device_type"] == "cuda"
        return [Table(header, [_pair(pair, is_gpu) for pair in results.paired], range(3, 4))]
    if not _is_judged(results):
        return []
    if results.is_joint:
        return [joint_table(results), clock_verdicts(joint_verdicts(results), _TITLE)]
    judged = verdicts(results)
    if len(clocks(results)) > 1:
        return [*gpu_tables(results), clock_verdicts(judged, _TITLE)]
    made = [_ratios(rows(results))]
    if judged:
        header = [_TITLE, "mean", "worst", "target", ""]
        made.append(Table(header, [verdict_cells(verdict) for verdict in judged], range(1, 2)))
    return made


def notes(results: Results) -> list[str]:
    """What has to be said beside the tables."""
    if results.paired:
        memory = [_memory(pair) for pair in results.paired if pair.extra_peak_bytes is not None]
        host = [_host(pair) for pair in results.paired if pair.launches is not None]
        return [*memory, *host, *_failed(results)]
    if not _is_judged(results):
        return [*_untimed(results), *_failed(results)]
    said = [_about_joint(results) if results.is_joint else _about_cross(results)]
    if len(clocks(results)) > 1:
        said += gpu_notes(results)
    return [*said, *_untimed(results), *_failed(results)]


def where(results: Results) -> str:
    """Where and with what a run was measured."""
    machine = results.machine
    capability = f", {machine['cpu_capability']}" if machine["device_type"] == "cpu" else ""
    return (
        f"{machine['device']}, {machine['threads']} threads{capability}, torch {machine['torch']}, "
        f"memattn {machine['memattn']}, commit {machine['commit']}, {results.date}"
    )


def _is_judged(results: Results) -> bool:
    """Whether there is a case that memattn did not fail."""
    return bool(joint_rows(results) if results.is_joint else rows(results))


def _about_cross(results: Results) -> str:
    backends = ", ".join(dict.fromkeys(row.timing.provider for row in rows(results)))
    is_gpu = len(clocks(results)) > 1
    spread = "" if is_gpu else ", and in brackets between what half of them lie"
    return (
        f"{backends} with statistics by others, lower is better: median over the turns{spread}; "
        "means are geometric. Sums: the faster of torch's attention with a softmax and its sums "
        "beside it, and of attention and sums from one softmax. Copy, product: what copying the "
        "layer's bytes takes here, or as many operations of a large matrix product, whichever is "
        "longer; a layer in the cache can be faster."
    )


def _about_joint(results: Results) -> str:
    ours = [timing for timing in results.timings if timing.gives == "with statistics"]
    names = ", ".join(dict.fromkeys(timing.provider for timing in ours))
    return (
        f"Joint attention with the statistics of the text's columns ({names}; the fastest is "
        "shown) by the fastest attention without, lower is better: median over the turns; means "
        "are geometric."
    )


def _untimed(results: Results) -> list[str]:
    """One sentence for each provider and reason."""
    cases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for provider, case, reason in results.machine.get("untimed", ()):
        cases[provider, reason].append(case)
    return [
        f"Not timed: {provider}{_on(names)}: {reason}."
        for (provider, reason), names in cases.items()
    ]


def _failed(results: Results) -> list[str]:
    """One sentence for each case and reason."""
    who: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, case, reason in results.machine.get("failed", ()):
        who[case, reason].append(name)
    return [
        f"Failed: {', '.join(names)} on {case}: {reason}." for (case, reason), names in who.items()
    ]


def _on(cases: list[str]) -> str:
    named = [case for case in cases if case]
    return f" on {', '.join(named)}" if named else ""


def _ratios(table: list[Row]) -> Table:
    header = ["layer", "dtype", "us", *(name for name, _ in _COLUMNS.values())]
    lines = [_case(row) for row in table]
    for name, summary in (("mean", statistics.geometric_mean), ("worst", max)):
        medians = [[getattr(row, column).median for row in table] for column in _COLUMNS]
        lines.append([name, "", "", *(f"{summary(values):.2f}" for values in medians)])
    return Table(header, lines, range(2, len(header)))


def _case(row: Row) -> list[str]:
    cells = {
        name: ratio_cell(getattr(row, name), spread=spread)
        for name, (_, spread) in _COLUMNS.items()
    }
    cells["fastest"] += f" {short_name(row.fastest_name)}"
    return [row.timing.shape, row.timing.dtype, f"{row.microseconds:.0f}", *cells.values()]


def _pair(pair: PairedRatio, is_gpu: bool) -> list[str]:
    # On a GPU, events stand around layers that the host launches kernel by kernel.
    what = f"{pair.what} and gaps" if is_gpu and pair.what == _LAYERS else pair.what
    interval = f"{pair.ratio:.3f} ({pair.ratio_low:.3f}-{pair.ratio_high:.3f})"
    return [pair.denoiser, what, pair.dtype, interval, recording_verdict(pair)]


def _memory(pair: PairedRatio) -> str:
    return (
        f"{pair.denoiser}, {pair.dtype}: recorded by the {pair.backend} backend, at the peak "
        f"{(pair.extra_peak_bytes or 0) / 1e6:.2f} MB more were in use in torch's allocator; the "
        f"record holds {(pair.record_bytes or 0) / 1e6:.2f} MB."
    )


def _host(pair: PairedRatio) -> str:
    return (
        f"{pair.denoiser}, {pair.dtype}: a recorded run of one step launches {pair.launches} "
        f"kernels and copies, a stock one {pair.stock_launches}; its host waits {pair.waits} times "
        f"for the GPU, the stock one's {pair.stock_waits}. The layers' time has in it what the GPU "
        "waited for the host."
    )

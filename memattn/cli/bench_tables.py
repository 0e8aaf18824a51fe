"""What `memattn bench` prints: ratios, and the targets beside them."""

from memattn.benchmarks.ratios import (
    Ratio,
    Row,
    Verdict,
    geometric_mean,
    recording_memory,
    recording_verdict,
    rows,
    value,
    verdicts,
)
from memattn.benchmarks.results import Results
from memattn.cli.tables import paragraph, table

_COLUMNS = {
    "sdpa": "by torch's\nattention",
    "fastest": "by the fastest\nplain attention",
    "sums": "by softmax\nand sums",
    "without": "by itself\nwithout",
    "floor": "by the\nfloor",
}


def print_results(results: Results) -> None:
    """Print where and with what was measured, and the tables of one run."""
    machine = results.machine
    print(
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, memattn "
        f"{machine['memattn']}, commit {machine['commit']}, {results.date}\n"
    )
    if results.timings:
        ratios = rows(results)
        _print_ratios(ratios)
        print()
        lines = [_verdict(verdict) for verdict in verdicts(ratios, machine["device_type"])]
        print(table(["with statistics, by", "mean", "worst", "target", ""], lines))
    else:
        _print_recording(results)


def _print_ratios(ratios: list[Row]) -> None:
    lines = [
        [
            row.timing.shape,
            row.timing.dtype,
            f"{row.timing.median_us:.0f}",
            _with_spread(row.sdpa),
            # without the word that most of these names share
            f"{row.fastest.median:.2f} {row.fastest_name.removeprefix('sdpa_')}",
            f"{row.sums.median:.2f}",
            f"{row.without.median:.2f}",
            f"{row.floor:.2f}",
        ]
        for row in ratios
    ]
    for name, summary in (("geometric mean", geometric_mean), ("worst", max)):
        found = [f"{summary(value(row, column) for row in ratios):.2f}" for column in _COLUMNS]
        lines.append([name, "", "", *found])
    print(table(["", "", "memattn,\nus", *_COLUMNS.values()], lines, right=range(2, 8)))
    print()
    backends = ", ".join(dict.fromkeys(row.timing.provider for row in ratios))
    print(
        paragraph(
            f"{backends} with statistics by others, lower is better: median over the turns, and "
            "between what half of them lie. Softmax and sums: the faster of "
            "scaled_dot_product_attention with sums beside it and of attention and sums from one "
            "softmax. Floor: bytes by copy bandwidth or products by the speed of a matrix "
            "product, whichever is longer."
        )
    )


def _verdict(verdict: Verdict) -> list[str]:
    target = verdict.target
    limit = f"{target.limit:.2f}"
    if target.worst is not None:
        limit += f", worst {target.worst:.2f}"
    return [
        target.text,
        f"{verdict.mean:.2f}",
        f"{verdict.worst:.2f} {verdict.worst_case}",
        limit,
        "met" if verdict.is_met else "missed",
    ]


def _print_recording(results: Results) -> None:
    lines = [
        [
            pair.denoiser,
            pair.what,
            pair.dtype,
            f"{pair.ratio:.3f} ({pair.ratio_low:.3f}-{pair.ratio_high:.3f})",
            str(pair.pairs),
            recording_verdict(pair),
        ]
        for pair in results.paired
    ]
    header = ["denoiser", "recorded by stock", "dtype", "ratio (95 % interval)", "pairs", "target"]
    print(table(header, lines, right=[4]))
    print()
    for sentence in recording_memory(results.paired):
        print(paragraph(sentence))


def _with_spread(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"

"""What is committed of the measurements, and the README's section that is made from it."""

import re
from pathlib import Path

from memattn.benchmarks.ratios import (
    Row,
    Verdict,
    geometric_mean,
    recording_memory,
    recording_verdict,
    rows,
    verdicts,
)
from memattn.benchmarks.results import Results, load

RESULTS = Path(__file__).resolve().parent / "results"  # in a checkout; no wheel has it
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
RECORDING = "-recording"  # in the names of the files of that run
_WHOLE_RUN = re.compile(rf"\d{{4}}-\d\d-\d\d({RECORDING})?\.json")


def newest(folder: Path = RESULTS) -> list[Path]:
    """For every device, the last whole run of the kernels and the last one of recording.

    Args:
        folder: Where there is one folder for each device.
    """
    found = []
    for device in sorted(path for path in folder.glob("*") if path.is_dir()):
        files = [path for path in sorted(device.glob("*.json")) if _WHOLE_RUN.fullmatch(path.name)]
        for is_recording in (False, True):
            runs = [path for path in files if (RECORDING in path.name) == is_recording]
            found += runs[-1:]
    return found


def section(paths: list[Path]) -> str:
    """Markdown tables of these files: what stands between the README's two markers."""
    return "\n".join(_tables(path, load(path)) for path in paths)


def _tables(path: Path, results: Results) -> str:
    parts = [_kernels(results)] if results.timings else [_recording(results)]
    machine = results.machine
    capability = f", {machine['cpu_capability']}" if machine["device_type"] == "cpu" else ""
    parts.append(
        f"{machine['device']}, {machine['threads']} threads{capability}, torch "
        f"{machine['torch']}, `{path.parent.name}/{path.name}`.\n"
    )
    return "\n".join(parts)


def _kernels(results: Results) -> str:
    table = rows(results)
    dtypes = list(dict.fromkeys(row.timing.dtype for row in table))
    names = list(dict.fromkeys(row.timing.shape for row in table))
    cells = {(row.timing.shape, row.timing.dtype): row for row in table}
    header = ["layer"]
    for dtype in dtypes:
        header += [f"{dtype}, ms", "by SDPA", "by sums"]
    lines = [_line(header), _line(["---"] + ["--:"] * (len(header) - 1))]
    for name in names:
        line = [f"`{name}`"]
        for dtype in dtypes:
            line += _case(cells.get((name, dtype)))
        lines.append(_line(line))
    line = ["geometric mean"]
    for dtype in dtypes:
        judged = [row for row in table if row.timing.dtype == dtype]
        line += [
            "",
            f"**{geometric_mean(row.sdpa.median for row in judged):.2f}**",
            f"{geometric_mean(row.sums.median for row in judged):.2f}",
        ]
    lines += [_line(line), ""]
    lines += [_line(["with statistics, by", "mean", "worst", "target", ""])]
    lines += [_line(["---", "--:", "--:", "--:", "---"])]
    device = results.machine["device_type"]
    lines += [_verdict(verdict) for verdict in verdicts(table, device)]
    return "\n".join(lines) + "\n"


def _case(row: Row | None) -> list[str]:
    if row is None:
        return ["", "", ""]
    return [
        f"{row.timing.median_us / 1000:.3g}",
        f"{row.sdpa.median:.2f}",
        f"{row.sums.median:.2f}",
    ]


def _verdict(verdict: Verdict) -> str:
    target = verdict.target
    limit = f"{target.limit:.2f}"
    if target.worst is not None:
        limit += f", worst {target.worst:.2f}"
    met = "met" if verdict.is_met else "missed"
    return _line([target.text, f"{verdict.mean:.2f}", f"{verdict.worst:.2f}", limit, met])


def _recording(results: Results) -> str:
    lines = [
        _line(["recorded by stock", "what", "dtype", "ratio (95 % interval)", "target"]),
        _line(["---", "---", "---", "--:", "---"]),
    ]
    for pair in results.paired:
        interval = f"{pair.ratio:.3f} ({pair.ratio_low:.3f} to {pair.ratio_high:.3f})"
        told = recording_verdict(pair)
        lines.append(_line([pair.denoiser, pair.what, pair.dtype, interval, told]))
    return "\n".join([*lines, "", *recording_memory(results.paired)]) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

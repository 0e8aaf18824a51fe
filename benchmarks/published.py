"""What is committed of the measurements, and the README's section that is made from it."""

import re
from pathlib import Path

from memattn.benchmarks.results import load
from memattn.benchmarks.table import Table
from memattn.benchmarks.tables import notes, tables, where

RESULTS = Path(__file__).resolve().parent / "results"  # in a checkout; no wheel has it
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
RECORDING, JOINT = "-recording", "-joint"  # in the names of the files of those runs
_USUAL_RUN = re.compile(rf"\d{{4}}-\d\d-\d\d({RECORDING}|{JOINT}|)\.json")


def newest(folder: Path = RESULTS) -> list[Path]:
    """For every device, the last usual runs of the kernels, of joint attention and of recording.

    Runs of `--all` or `--only`, and those on a machine that was busy, are not taken.

    Args:
        folder: Where there is one folder for each device.
    """
    found = []
    for device in sorted(path for path in folder.glob("*") if path.is_dir()):
        last = {}
        for path in sorted(device.glob("*.json")):
            usual = _USUAL_RUN.fullmatch(path.name)
            if usual and load(path).machine.get("busy") is None:
                last[usual[1]] = path
        found += [last[kind] for kind in ("", JOINT, RECORDING) if kind in last]
    return found


def section(paths: list[Path]) -> str:
    """Markdown tables of these files: what stands between the README's two markers."""
    parts = []
    for path in paths:
        results = load(path)
        parts += [_markdown(table) for table in tables(results)]
        parts += [*notes(results), f"{where(results)}: `{path.parent.name}/{path.name}`."]
    return "\n\n".join(parts)


def _markdown(table: Table) -> str:
    header = [name.replace("\n", " ") for name in table.header]
    rule = ["--:" if column in table.right else "---" for column in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *table.rows])

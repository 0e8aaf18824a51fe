"""What Nsight Compute counts in our kernels on real layers: bytes, bandwidth, pipes, registers.

    python -m memattn.benchmarks.counters FILE.csv

One call with statistics for each layer and backend, each kernel of it in a line of its own, with a
cold cache. Kernels are replayed for groups of counters, at whatever clock the GPU has: durations
say what to make of the other columns, and are no benchmark.
"""

import argparse
import csv
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from memattn.benchmarks.cases import Case, cross_attention_cases, inputs
from memattn.benchmarks.machine import folder_name
from memattn.benchmarks.providers import backends, with_statistics
from memattn.benchmarks.published import RESULTS
from memattn.errors import InputError, MemattnError
from memattn.whole import whole_file

_CUDA = "/usr/local/cuda/bin"
# Between the calls, so that a kernel is known to be of one: torch's, which only takes its time.
_MARKER = "spin_kernel"
_OURS = (
    *("short_keys_kernel", "long_keys_kernel", "fold_kernel"),
    *("cross_attention_", "column_statistics_kernel"),
)
_ACTIVE = "avg.pct_of_peak_sustained_active"
_MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3}  # by the names that versions of ncu have for it

# By the column that it becomes; of several names the first that the GPU has.
METRICS = {
    "duration_us": ("gpu__time_duration.sum",),
    "dram_read_bytes": ("dram__bytes_read.sum",),
    "dram_written_bytes": ("dram__bytes_write.sum",),
    "dram_bandwidth_percent": ("gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",),
    "l2_hit_percent": ("lts__t_sector_hit_rate.pct",),
    "tensor_pipe_percent": (
        f"sm__pipe_tensor_cycles_active.{_ACTIVE}",
        f"sm__inst_executed_pipe_tensor.{_ACTIVE}",
    ),
    "special_function_pipe_percent": (f"sm__inst_executed_pipe_xu.{_ACTIVE}",),
    "issue_slots_percent": (f"sm__issue_active.{_ACTIVE}",),
    "registers": ("launch__registers_per_thread",),
    "occupancy_percent": (f"sm__warps_active.{_ACTIVE}",),
}
COLUMNS = ("shape", "dtype", "backend", "kernel", *METRICS)

Call = tuple[Case, str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m memattn.benchmarks.counters")
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE.csv",
        help="what to write (by default <date>-counters.csv beside the checkout's results)",
    )
    given: Path | None = parser.parse_args(arguments).file
    try:
        ncu = _ncu()
        if not torch.cuda.is_available():
            raise InputError("got no CUDA device, expected one.")
        path = given or _path()
        if path.exists():
            raise InputError(f"{path} is there already, and is not replaced: move or remove it.")
        counted = table(_profile(ncu), calls())
    except MemattnError as error:
        sys.exit(f"counters: {error}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *counted])
    print(f"counters: {path}")


def calls() -> list[Call]:
    """Every layer with each backend of ours that can run it, in a fixed order."""
    return [
        (case, backend)
        for case in cross_attention_cases("cuda", every=False, only="")
        for backend, reason in backends(case).items()
        if reason is None and backend != "reference"
    ]


def run_calls() -> None:
    """What ncu watches: each call once, behind a marker; what compiles it comes before."""
    with torch.inference_mode():
        for case, backend in calls():
            tensors = inputs(case)
            call = with_statistics(backend).call
            call(*tensors)
            torch.cuda.synchronize()
            torch.cuda.profiler.start()
            torch.cuda._sleep(1)
            call(*tensors)
            torch.cuda.synchronize()
            torch.cuda.profiler.stop()


def table(text: str, counted: Sequence[Call]) -> list[list[str]]:
    """The lines of the table, one for each kernel; a counter that the GPU lacks is empty.

    Args:
        text: What `ncu --csv --page raw` wrote about `run_calls`.
        counted: The calls that were made.

    Raises:
        MemattnError: If the text is not about these calls.
    """
    lines = []
    made = iter(counted)
    call: Call | None = None
    markers = 0
    for row in _rows(text):
        name = _base_name(row["Kernel Name"])
        if name == _MARKER:
            call, markers = next(made, None), markers + 1
        elif call is not None:
            case, backend = call
            lines.append([case.shape.name, case.dtype_name, backend, name, *_counters(row)])
    if markers != len(counted):
        raise MemattnError(f"got {markers} calls from ncu, expected {len(counted)}.")
    return lines


def _base_name(kernel: str) -> str:
    """A kernel's name without its namespaces, template arguments and parameters."""
    found = re.search(r"\w+(?=[<(]|$)", kernel)
    return kernel if found is None else found[0]


def _rows(text: str) -> list[dict[str, str]]:
    """By column; durations in microseconds. ncu's own remarks are left out."""
    header, *others = csv.reader(line for line in text.splitlines() if line.startswith('"'))
    units, *rows = (dict(zip(header, values, strict=True)) for values in others)
    (duration,) = METRICS["duration_us"]
    unit = units.get(duration, "")
    if unit not in _MICROSECONDS:
        raise MemattnError(f"got durations in {unit!r} from ncu, expected nanoseconds.")
    for row in rows:
        number = _number(row[duration])
        row[duration] = "" if number is None else f"{_MICROSECONDS[unit] * number:.3f}"
    return rows


def _counters(row: dict[str, str]) -> Iterable[str]:
    """What stands in the columns of METRICS."""
    for names in METRICS.values():
        numbers = (_number(row.get(name, "")) for name in names)
        found = next((number for number in numbers if number is not None), None)
        yield "" if found is None else f"{found:.10g}"


def _number(text: str) -> float | None:
    """A number with commas between its thousands; None for what ncu could not count."""
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return None


def _profile(ncu: str) -> str:
    """Run the calls in a process that ncu watches, and return what it wrote.

    Raises:
        MemattnError: If it could not count, with its own words.
    """
    names = [name for alternatives in METRICS.values() for name in alternatives]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "ncu.csv"
        command = [
            *(ncu, "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log)),
            *("--profile-from-start", "off", "--clock-control", "none"),
            *("--target-processes", "application-only"),  # not the compilers that Triton starts
            *("--kernel-name", f"regex:{'|'.join((_MARKER, *_OURS))}"),
            *("--metrics", ",".join(names)),
            *(sys.executable, "-P", "-c"),
            "from memattn.benchmarks.counters import run_calls; run_calls()",
        ]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        text = log.read_text(encoding="utf-8") if log.exists() else ""
    errors = [line for line in text.splitlines() if line.startswith("==ERROR==")]
    if done.returncode != 0 or errors or '"Kernel Name"' not in text:
        reason = errors[0].removeprefix("==ERROR==").strip() if errors else "it counted nothing"
        raise MemattnError(f"ncu ended with exit code {done.returncode}: {reason}")
    return text


def _ncu() -> str:
    """Nsight Compute's program: on the path, or where CUDA has it."""
    found = shutil.which("ncu") or shutil.which("ncu", path=_CUDA)
    if found is None:
        raise InputError("got no ncu on the path, expected Nsight Compute's, which CUDA brings.")
    return found


def _path() -> Path:
    """A file beside the results of this GPU."""
    if not RESULTS.is_dir():
        raise InputError("got no FILE.csv, expected one outside a checkout.")
    date = datetime.now(UTC).date().isoformat()
    return RESULTS / folder_name("cuda") / f"{date}-counters.csv"


if __name__ == "__main__":
    main()

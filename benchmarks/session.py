"""Runs the suite in a process of its own and reads what it found."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from memattn import _env
from memattn.benchmarks.results import Results, from_pytest_benchmark
from memattn.errors import InputError, MemattnError

_HERE = Path(__file__).parent
KERNELS, RECORDING = "bench_cross_attention.py", "bench_recording.py"
JOINT = "bench_column_statistics.py"
_PLUGIN = "pytest_benchmark"
_SOME_FAILED = 1  # pytest's exit code; what it did not come to run has others


class BenchmarksFailedError(MemattnError):
    """Some benchmarks failed; the message ends in pytest's lines about them.

    Attributes:
        results: What the others measured; the machine's "failed" names those that it lacks.
    """

    def __init__(self, message: str, results: Results) -> None:
        super().__init__(message)
        self.results = results


def check_installed() -> None:
    """Refuse, in one sentence, where pytest-benchmark is missing."""
    if importlib.util.find_spec(_PLUGIN) is None:
        raise InputError(
            "the benchmarks run in pytest-benchmark, which is not installed here: "
            "pip install 'memattn[bench]'."
        )


def run(suite: str, options: Sequence[str]) -> Results:
    """Time one suite, with a progress bar on stderr.

    Args:
        suite: `KERNELS`, `JOINT` or `RECORDING`.
        options: Options of the suite's conftest, or of pytest.

    Returns:
        What was measured.

    Raises:
        BenchmarksFailedError: If a benchmark failed. The others were timed all the same.
        MemattnError: If nothing was timed; the message ends in pytest's lines about it.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "benchmarks.json"
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "pytest", str(_HERE / suite), *options),
                # No settings of a project that happens to lie around, and nothing left behind.
                *("-c", os.devnull, "--rootdir", str(_HERE), "-p", "no:cacheprovider"),
                *("--import-mode=importlib", "-vv", "-rfEs", "--capture=no"),
                *("-p", "memattn.benchmarks.progress"),
                *("--benchmark-quiet", f"--benchmark-json={written}"),
                f"--benchmark-storage={folder}",
            ],
            env=_env.without("PYTEST_ADDOPTS"),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        failed = f"the benchmarks failed: {_failures(done.stdout)}"
        if done.returncode not in (0, _SOME_FAILED):
            raise MemattnError(failed)
        if not written.exists():
            raise MemattnError(f"nothing was timed: {_failures(done.stdout)}")
        results = from_pytest_benchmark(written)
        if done.returncode:
            raise BenchmarksFailedError(failed, results)
        return results


def _failures(output: str) -> str:
    """The lines of pytest's summary about failures and skips, or the end of what it wrote."""
    lines = output.strip().splitlines()
    found = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return "\n".join(found or lines[-3:])

"""`make gpu`, with programs in the place of the real ones that note how they were called."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {
    "gpu-tests": "--ignore=tests/benchmarks",
    "gpu-tests-alone": "--continue-on-collection-errors tests/benchmarks",
    "gpu-memcheck": "--tool memcheck",
    "gpu-racecheck": "--tool racecheck",
    "gpu-initcheck": "--tool initcheck",
    "gpu-synccheck": "--tool synccheck",
    "gpu-bench": "bench --device cuda --anyway --save options:",
    "gpu-joint": "--save --joint",
    "gpu-recording": "--save --recording",
    "gpu-counters": "-m memattn.benchmarks.counters",
}
NOTES = """#!/bin/sh
told="$* options: $PYTEST_ADDOPTS"
echo "$told" >> "$CALLS"
case "$told" in
  *"$REFUSED"*) exit 1;;
esac
"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Runs a target: its exit status, and the command lines it came to."""
    for name in ("bin/python", "bin/memattn", "compute-sanitizer"):
        program = tmp_path / name
        program.parent.mkdir(exist_ok=True)
        program.touch(mode=0o755)
        program.write_text(NOTES)
    (tmp_path / ".memattn-installed").touch()
    calls = tmp_path / "calls"
    monkeypatch.setenv("CALLS", str(calls))
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    monkeypatch.setenv("PYTEST_ADDOPTS", "-n 14")

    def run(target, refused="nothing at all"):
        monkeypatch.setenv("REFUSED", refused)
        programs = [f"VENV={tmp_path}", f"COMPUTE_SANITIZER={tmp_path}/compute-sanitizer"]
        done = subprocess.run(["make", target, *programs], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, calls.read_text()

    return run


def test_without_a_gpu_nothing_runs(make):
    status, calls = make("gpu", refused="torch.cuda")
    assert status != 0
    assert not any(call in calls for call in PARTS.values())


@pytest.mark.parametrize("failing", PARTS)
def test_a_part_that_fails_is_told_and_keeps_no_other_from_running(make, failing):
    status, calls = make("gpu", refused=PARTS[failing])
    assert status != 0
    assert all(call in calls for call in PARTS.values())


def test_without_a_failure_all_is_well(make):
    status, calls = make("gpu")
    assert status == 0
    assert all(call in calls for call in PARTS.values())


def test_only_what_is_not_timed_runs_beside_others(make):
    beside, alone = (
        make(target)[1].splitlines()[-1] for target in ("gpu-tests", "gpu-tests-alone")
    )
    assert beside.endswith("options: -n 14")
    assert "-p no:benchmark" in beside
    assert "-n 14" not in alone


def kernels():
    """The kernels of both languages: a name, or a part of a mangled one."""
    for path in (ROOT / "kernels" / "triton" / "jit").glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_kernel"):
                yield node.name
    for path in (ROOT / "csrc" / "cuda").glob("*"):
        text = path.read_text(encoding="utf-8")
        namespaces = re.findall(r"^namespace (\w+)::\w+ \{", text, re.MULTILINE)
        yield from namespaces * text.count("__global__")


def test_every_kernel_of_ours_is_watched_and_none_of_torchs(make):
    _, calls = make("gpu-memcheck")
    watched = re.findall(r"--kernel-name kns=(\S+)", calls)
    found = list(kernels())
    assert len(found) >= 9
    assert [name for name in found if not any(part in name for part in watched)] == []
    for name in ("at::native::vectorized_elementwise_kernel", "sm90_xmma_gemm_bf16bf16_bf16f32"):
        assert not any(part in name for part in watched)


def test_an_offline_machine_is_told_what_works_there():
    comment = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "pip install --no-deps --no-build-isolation --editable ." in comment

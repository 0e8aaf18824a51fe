"""The Triton kernels without a GPU: every path in Triton's interpreter, against float64."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")


def test_every_path_is_within_the_error_budget_and_right_at_the_ends():
    run()


@pytest.mark.proof
def test_every_path_obeys_the_definition_wherever_its_inputs_lie():
    run("everything")


def run(*arguments):
    # The packages are this process's; the interpreter is numpy, and one thread is all it uses.
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHONSAFEPATH": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.interpreted", *arguments],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "interpreted"

"""Programs of tests that want a process of their own, with this one's packages."""

import os
import subprocess
import sys
from pathlib import Path


def run_program(name, *arguments, **variables):
    """Run tests/kernels/<name>.py, which says its name when it is done; the lines it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.kernels.{name}", *arguments],
        cwd=Path(__file__).parents[2],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "PYTHONSAFEPATH": "1",
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == name
    return lines

"""What `memattn info` says about the compiled kernels."""

import os
import subprocess
import sys

import pytest

from memattn import _extension
from tests.compilers import needs_cpu_library


@needs_cpu_library
@pytest.mark.parametrize("limit", ["avx2", "default"])
def test_info_names_library_and_instruction_set(limit):
    done = subprocess.run(
        [sys.executable, "-c", "from memattn.cli.main import main; main(['info'])"],
        env={**os.environ, "ATEN_CPU_CAPABILITY": limit},
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("cpu kernels: "))
    instructions, library = line.removeprefix("cpu kernels: ").split(", ")
    assert instructions in ("AVX2", "DEFAULT")[limit == "default" :]  # or less, on an old processor
    assert library == str(_extension.path("cpu"))


def test_info_without_a_library_gives_the_loaders_sentence(monkeypatch, tmp_path, capsys):
    from memattn.cli.main import main

    monkeypatch.setattr(_extension, "path", lambda name: tmp_path / name)
    assert main(["info"]) == 0
    assert "cpu kernels: this installation has no compiled cpu library: " in capsys.readouterr().out

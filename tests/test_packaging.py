"""kernels/ and benchmarks/ install below memattn, and sdist and wheel hold what the checkout holds.

Built as on a machine without a compiler, which is quick; the library in the wheel, and every kernel
in an environment of its own, is what `make dist` tries.
"""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.compilers import needs_compiler

ROOT = Path(__file__).parent.parent


def test_kernels_folder_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_kernels_and_benchmarks_install_below_memattn(tmp_path):
    backends = sorted(p.parent.name for p in ROOT.glob("kernels/*/__init__.py"))
    assert {"cpu", "reference"} <= set(backends)
    names = [*(f"memattn.kernels.{name}" for name in backends), "memattn.benchmarks"]
    program = (
        "import importlib, importlib.util\n"
        f"for name in {names}: importlib.import_module(name)\n"
        "for name in ('kernels', 'benchmarks'):\n"
        "    spec = importlib.util.find_spec(name)\n"
        "    print(spec and spec.origin)\n"
    )
    done = subprocess.run(  # away from the checkout
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout  # None, or another project's package of that name


class Built(NamedTuple):
    """A wheel built from an sdist where there is no compiler."""

    wheel: Path
    installed: set[str]
    sources: set[str]
    log: str


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        env={**os.environ, "CXX": str(out / "no-compiler")},
        check=True,
        capture_output=True,
        text=True,
    )
    (wheel,) = out.glob("*.whl")
    (sdist,) = out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        installed = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        sources = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    return Built(wheel, installed, sources, done.stdout + done.stderr)


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_checkout(built):
    expected = {
        prefix + path.relative_to(ROOT / folder).as_posix()
        for folder, prefix in (
            ("kernels", "memattn/kernels/"),
            ("benchmarks", "memattn/benchmarks/"),
            ("memattn", "memattn/"),
        )
        for path in files(folder)
        if path.suffix != ".so" and not path.is_relative_to(ROOT / "benchmarks" / "results")
    }
    assert {name for name in built.installed if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in built.installed)


@pytest.mark.slow
def test_wheel_installs_no_top_level_package_but_memattn(built):
    tops = {name.split("/")[0] for name in built.installed}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"memattn"}


@pytest.mark.slow
def test_sdist_holds_every_file_of_the_library(built):
    library = {path.relative_to(ROOT).as_posix() for path in files("csrc")}
    assert "csrc/cpu/cross_attention.cpp" in library
    assert library <= built.sources


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_for_any_machine_and_the_log_says_why(built):
    assert built.wheel.name.endswith("-py3-none-any.whl")
    reason = r"built without its compiled libraries: the compiler \S+no-compiler cannot be run"
    assert re.search(reason, built.log)


@needs_compiler
def test_what_a_compiler_refuses_is_an_error(tmp_path):
    folders = [f"--build-{name}={tmp_path / name}" for name in ("lib", "temp")]
    done = subprocess.run(
        [sys.executable, "setup.py", "build_ext", *folders],
        cwd=ROOT,
        env={**os.environ, "CXXFLAGS": "-include planted.h"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "planted.h: No such file" in done.stdout + done.stderr


def files(folder):
    """Every file of a folder of the checkout but caches."""
    for path in sorted((ROOT / folder).rglob("*")):
        if path.is_file() and not is_cache(path.relative_to(ROOT)):
            yield path


def is_cache(path):
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)

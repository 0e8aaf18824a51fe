"""kernels/ never becomes a package of its own, and the wheel holds what the checkout holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_kernels_folder_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_every_kernel_backend_installs_below_memattn(tmp_path):
    children = sorted(p.parent.name for p in ROOT.glob("kernels/*/__init__.py"))
    assert "reference" in children
    program = (
        "import importlib, importlib.util\n"
        f"for name in {children}: importlib.import_module('memattn.kernels.' + name)\n"
        "spec = importlib.util.find_spec('kernels')\n"
        "print(spec and spec.origin)\n"
    )
    done = subprocess.run(  # away from the checkout
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout  # None, or HuggingFace's package of that name


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Names of the files in a wheel built from an sdist, as `make dist` builds it."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


@pytest.mark.slow
def test_wheel_holds_every_file_of_the_checkout(wheel):
    expected = {
        prefix + path.relative_to(ROOT / folder).as_posix()
        for folder, prefix in (("kernels", "memattn/kernels/"), ("memattn", "memattn/"))
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not is_cache(path.relative_to(ROOT))
    }
    assert {name for name in wheel if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)


@pytest.mark.slow
def test_wheel_installs_no_top_level_package_but_memattn(wheel):
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"memattn"}


def is_cache(path):
    return any(part == "__pycache__" or part.startswith(".") for part in path.parts)

"""The public names, and what `import memattn` may not cost."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memattn

PUBLIC = {
    "AttnProcessor",
    "ColumnStatisticsResult",
    "CrossAttentionResult",
    "Record",
    "column_statistics",
    "cross_attention",
    "detectors",
    "explain",
    "record",
    "testbed",
}
BLOCKED = ("triton", "diffusers", "transformers", "scipy", "jinja2")


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )


def test_public_names_are_exactly_these():
    assert set(memattn.__all__) == PUBLIC
    assert memattn.__all__ == sorted(memattn.__all__)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_resolves(name):
    assert getattr(memattn, name) is not None
    assert name in dir(memattn)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'memattn' has no attribute 'atention'"):
        _ = memattn.atention


def test_version_is_that_of_the_package():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert memattn.__version__ == project["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", memattn.__version__)


def test_the_op_works_where_nothing_optional_is_installed():
    done = run(
        f"import sys\nfor name in {BLOCKED}: sys.modules[name] = None\n"
        "import torch, memattn, memattn.detectors\n"
        "q = torch.ones(1, 1, 2, 8)\n"
        "print(memattn.cross_attention(q, q, q).token_mass.sum().item())\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2.0\n"


def test_importing_memattn_imports_nothing_heavy():
    done = run(f"import sys, memattn\nprint([name for name in {BLOCKED} if name in sys.modules])\n")
    assert done.stdout == "[]\n", done.stderr

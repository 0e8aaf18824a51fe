"""Imports go down only: the diagram of DESIGN.md as a table."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = {"types", "errors", "whole", "_env", "_extension"}
THIRD_PARTY = {
    "diffusers": {"processors", "recording", "testbed", "benchmarks"},
    "transformers": {"recording", "testbed", "evaluation"},
    "triton": {"kernels.triton", "benchmarks"},
    "scipy": {"evaluation"},
    "skimage": {"evaluation"},
    "jinja2": {"report", "benchmarks"},
    "matplotlib": {"report"},
    "PIL": {"report", "cli", "evaluation", "testbed"},
    "tqdm": {"cli", "evaluation", "testbed", "benchmarks"},
    "numpy": {"evaluation", "report", "cli", "testbed"},
    "safetensors": {"records", "record_files", "testbed", "evaluation"},
    "pytest": {"cli", "benchmarks"},
}
READS_ENVIRONMENT = re.compile(r"\b(environb?|getenvb?)\b")
ROOT_PACKAGE = ""  # `import memattn` itself: for its version
# Each layer may import itself and what stands here.
ALLOWED = {
    "cli": {
        ROOT_PACKAGE,
        "benchmarks",
        "report",
        "evaluation",
        "testbed",
        "detectors",
        "recording",
        "records",
        "ops",
    }
    | BASE,
    "benchmarks": {
        ROOT_PACKAGE,
        "testbed",
        "recording",
        "records",
        "processors",
        "ops",
        "kernels.triton",
        "testing",
    }
    | BASE,
    "report": {"evaluation", "testbed", "detectors", "records"} | BASE,
    "testbed": {"evaluation", "recording", "records"} | BASE,
    "evaluation": {ROOT_PACKAGE, "detectors", "recording", "records"} | BASE,
    "detectors": {"records", "types", "errors"},
    "recording": {"processors", "records", "ops"} | BASE,
    "processors": {"ops", "records"} | BASE,
    "records": {"record_files", "gap_spaces"} | BASE,
    "gap_spaces": BASE,
    "record_files": BASE,
    "ops": {"kernels"} | BASE,
    "kernels": set(),
    "kernels.reference": {"types", "errors"},
    "kernels.cpu": {"types", "errors", "_extension"},
    "kernels.triton": {"types", "errors"},
    "kernels.cuda": {"types", "errors", "_extension"},
    "testing": BASE,
    "types": set(),
    "whole": set(),
    "errors": set(),
    "_env": set(),
    "_extension": set(),
}


def sources():
    for path in sorted(ROOT.glob("memattn/**/*.py")):
        parts = path.relative_to(ROOT / "memattn").with_suffix("").parts
        if parts != ("__init__",):
            yield path, parts[0]
    for path in sorted(ROOT.glob("kernels/**/*.py")):
        yield path, ".".join(("kernels", path.relative_to(ROOT / "kernels").parts[0]))
    for path in sorted(ROOT.glob("benchmarks/**/*.py")):
        yield path, "benchmarks"


def imported(path):
    """Absolute names of everything a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # it would hide which layer it means
                yield "." * node.level + (node.module or "")
                continue
            names = [alias.name for alias in node.names]
            if node.module == "memattn":
                yield from (f"memattn.{name}" for name in names)
            else:
                yield node.module


def layer_of(name):
    parts = name.split(".")[1:]
    if parts[:1] == ["kernels"]:
        return ".".join(parts[:2])
    return parts[0] if parts else ROOT_PACKAGE


def violations(path, layer):
    allowed = ALLOWED[layer] | {layer}
    for name in imported(path):
        top = name.split(".")[0]
        if top == "memattn":
            if layer_of(name) not in allowed:
                yield f"{path.relative_to(ROOT)} imports {name}"
        elif top in ("", "kernels", "benchmarks") or (
            top in THIRD_PARTY and layer not in THIRD_PARTY[top]
        ):
            yield f"{path.relative_to(ROOT)} imports {name}"


def test_every_module_has_a_place_in_the_diagram():
    assert {layer for _, layer in sources()} <= set(ALLOWED)


def test_imports_go_down_only():
    found = [line for path, layer in sources() for line in violations(path, layer)]
    assert found == []


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("detectors", "from memattn.recording import record"),
        ("detectors", "import diffusers"),
        ("ops", "from memattn import processors"),
        ("kernels.cpu", "from memattn.kernels.reference import cross_attention"),
        ("kernels.cpu", "from memattn.ops import dispatch"),
        ("kernels.reference", "from memattn import _extension"),
        ("cli", "import kernels.reference"),
        ("cli", "from benchmarks import shapes"),
        ("ops", "from memattn.benchmarks import shapes"),
        ("detectors", "from ..recording import record"),
        ("detectors", "from .. import recording"),
    ],
)
def test_an_import_that_goes_up_is_found(tmp_path, monkeypatch, layer, line):
    path = tmp_path / "module.py"
    path.write_text(line)
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert list(violations(path, layer)) != []


def test_the_environment_is_read_in_one_file():
    readers = [path.name for path, _ in sources() if READS_ENVIRONMENT.search(path.read_text())]
    assert readers == ["_env.py"]


@pytest.mark.parametrize("line", ["os.environ['A']", "os.getenv('A')", "from os import environ"])
def test_every_way_to_read_the_environment_is_found(line):
    assert READS_ENVIRONMENT.search(line)

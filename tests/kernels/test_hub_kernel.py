"""The kernel for HuggingFace's hub: what its builder would find in csrc, and its Python.

The builder itself, which fetches a toolchain for every torch, is not run.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

import memattn
from memattn.ops.torch_library import cross_attention as package_op
from tests.compilers import needs_compiler, needs_cpu_library
from tests.kernels.cross_attention import SHAPES, extras, inputs

CSRC = Path(__file__).parents[2] / "csrc"
BINDING = CSRC / "torch-ext" / "torch_binding.cpp"

# What the builder puts beside the binding, as far as the binding uses it.
REGISTRATION = """
#define STABLE_TORCH_LIBRARY_EXPAND(NAME, MODULE) STABLE_TORCH_LIBRARY(NAME, MODULE)
#define STABLE_TORCH_LIBRARY_IMPL_EXPAND(NAME, DEVICE, MODULE) \\
  STABLE_TORCH_LIBRARY_IMPL(NAME, DEVICE, MODULE)
#define REGISTER_EXTENSION(NAME)
"""
# Likewise beside the Python: an op of a namespace of its own, here that of the CPU library.
OPS = """
import torch

library = torch.library.Library("memattn_on_the_hub", "DEF")
library.define("cross_attention" + {schema!r})
library.impl("cross_attention", torch.ops.memattn.cross_attention_cpu.default, "CPU")
ops = torch.ops.memattn_on_the_hub


def add_op_namespace_prefix(name):
    return f"memattn_on_the_hub::{{name}}"
"""


def test_every_source_of_the_kernels_is_listed():
    config = tomllib.loads((CSRC / "build.toml").read_text(encoding="utf-8"))
    sources = {path.relative_to(CSRC).as_posix() for path in (CSRC / "cuda").iterdir()}
    package_only = {"cuda/library.cu"}
    assert set(config["kernel"]["cross_attention"]["src"]) == sources - package_only | {"checks.h"}
    assert all((CSRC / source).is_file() for source in config["torch"]["src"])
    assert (CSRC / "torch-ext" / config["general"]["name"] / "__init__.py").is_file()


def test_the_schema_is_the_package_s():
    (literals,) = re.findall(r"library\.def\(([^;]*)\);", BINDING.read_text(encoding="utf-8"))
    assert "".join(re.findall(r'"([^"]*)"', literals)) == "cross_attention" + package_op._SCHEMA


@needs_compiler
@pytest.mark.parametrize("standard", ["c++17", "c++20"])  # the builder's, by torch's version
def test_the_binding_compiles(tmp_path, standard):
    (tmp_path / "registration.h").write_text(REGISTRATION, encoding="utf-8")
    folders = [f"-I{folder}" for folder in (tmp_path, CSRC, *include_paths())]
    names = ["-DTORCH_EXTENSION_NAME=_memattn_cuda_1", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command = ["c++", f"-std={standard}", "-fsyntax-only", *names, *folders, str(BINDING)]
    subprocess.run(command, check=True)


@pytest.fixture(scope="module")
def hub_kernel(tmp_path_factory):
    memattn.cross_attention(*inputs(SHAPES["one_key"]), backend="cpu")  # loads its library
    package = tmp_path_factory.mktemp("hub") / "memattn_on_the_hub"
    shutil.copytree(CSRC / "torch-ext" / "memattn", package)
    (package / "_ops.py").write_text(OPS.format(schema=package_op._SCHEMA), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(package.name, package / "__init__.py")
    module = sys.modules[package.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_cpu_library
@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("everything", [False, True])
def test_its_results_are_the_package_s(hub_kernel, statistics, everything):
    tensors = inputs(SHAPES["sd_64px"])
    arguments = {**(extras(SHAPES["sd_64px"]) if everything else {}), "statistics": statistics}
    result = hub_kernel.cross_attention(*tensors, **arguments)
    expected = memattn.cross_attention(*tensors, **arguments, backend="cpu")
    for name, field in result._asdict().items():
        package_s = getattr(expected, name)
        assert (field is None) == (package_s is None)
        assert field is None or torch.equal(field, package_s)


@needs_cpu_library
@pytest.mark.parametrize("wanted", [False, True])
def test_its_op_is_known_to_the_compiler(hub_kernel, wanted):
    tensors = inputs(SHAPES["sd_64px"])
    arguments = extras(SHAPES["sd_64px"]).values() if wanted else (None, None, None)
    op = hub_kernel.ops.cross_attention.default
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(op, (*tensors, *arguments, 0.5, wanted, wanted), test_utils=tests)

"""The library is there where it can be compiled, holds no C++ of torch, or says why not."""

import importlib.util
import re
import shutil
import subprocess

import pytest
import torch

import memattn
from memattn import _extension
from tests.compilers import needs_compiler, needs_cpu_library

CPU = _extension.path("cpu")


@needs_compiler
def test_where_there_is_a_compiler_there_is_the_library():
    query = torch.zeros(1, 1, 1, 8)
    assert dict(memattn.explain(query, query, query))["cpu"] is None
    assert str(CPU) in map(str, torch.ops.loaded_libraries)


@pytest.mark.parametrize(
    ("name", "needs"),
    [
        ("cpu", "torch and a compiler for C++20"),
        ("cuda", "torch with CUDA, a compiler for C++20 and nvcc"),
    ],
)
def test_a_library_that_was_not_compiled_is_one_sentence_each_time(
    monkeypatch, tmp_path, name, needs
):
    monkeypatch.setattr(_extension, "__file__", str(tmp_path / "_extension.py"))
    for _ in range(2):
        with pytest.raises(ImportError) as caught:
            _extension.load(name)
        assert caught.value.name is None  # a name would read as a missing module
        assert str(caught.value) == (
            f"this installation has no compiled {name} library: run `pip install "
            f"--no-build-isolation .` where {needs} are"
        )


def test_a_library_that_the_system_refuses_is_an_import_error_with_its_words(tmp_path):
    copy = shutil.copy(_extension.__file__, tmp_path)
    (tmp_path / "_abacus.abi3.so").write_text("no library")
    spec = importlib.util.spec_from_file_location("extension_elsewhere", copy)
    extension = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extension)
    for _ in range(2):
        with pytest.raises(ImportError, match=r"_abacus\.abi3\.so: .*(invalid|too short)"):
            extension.load("abacus")


def tool(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    return subprocess.run([*command, str(CPU)], capture_output=True, text=True, check=True).stdout


@needs_cpu_library
def test_the_library_uses_no_cpp_symbol_of_torch():
    undefined = tool("nm", "-D", "--undefined-only", "-C")
    assert "aoti_torch_" in undefined
    assert re.findall(r".*\b(?:at|c10|caffe2|torch)::.*", undefined) == []


@needs_cpu_library
def test_the_library_needs_torch_and_the_language_only():
    needed = set(re.findall(r"NEEDED.*\[(.+?)\.so", tool("readelf", "--dynamic", "--wide")))
    assert "libtorch_cpu" in needed
    language = r"libstdc\+\+|libgcc_s|libm|libc|ld-linux-.*"
    others = {n for n in needed if not re.fullmatch(rf"libtorch|libtorch_cpu|libc10|{language}", n)}
    assert others == set()  # a second OpenMP least of all

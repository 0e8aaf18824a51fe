"""Whether this machine can compile the library, found without asking setup.py."""

import os
import shlex
import shutil
import subprocess

import pytest

from memattn import _extension


def can_compile():
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    if shutil.which(compiler[0]) is None:
        return False
    command = [*compiler, "-std=c++20", "-fsyntax-only", "-x", "c++", "-"]
    source = "#include <bit>\nint bits = std::popcount(1u);\n"
    return subprocess.run(command, input=source, text=True, check=False).returncode == 0


needs_compiler = pytest.mark.skipif(not can_compile(), reason="there is no compiler for C++20")
needs_cpu_library = pytest.mark.skipif(
    not _extension.path("cpu").exists(), reason="the cpu library is not compiled here"
)

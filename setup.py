"""What pyproject.toml cannot say: where the packages lie, and the compiled library.

Each child of kernels/ installs as memattn.kernels.<child>, benchmarks/ as memattn.benchmarks.
csrc/cpu becomes memattn/_cpu.abi3.so where torch and a compiler for C++20 (CXX, else c++) are
there. Elsewhere the package is built without it, and one line says why. With a compiler there, what
it cannot compile is an error.
"""

import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

OLDEST_TORCH = (2, 10)  # runs the library; it is built with this one or any later
KERNEL_PACKAGES = find_packages("kernels")


def why_not_compiled() -> str | None:
    """Say what is missing to compile the library, or None."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "torch is not installed in the environment of this build (--no-build-isolation?)"
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < OLDEST_TORCH:
        return f"got torch {version}, expected {'.'.join(map(str, OLDEST_TORCH))} or later"
    probe = f"{os.environ['CXX']} -std=c++20 -x c++ -c {os.devnull} -o {os.devnull}"
    try:
        done = subprocess.run(shlex.split(probe), capture_output=True, text=True, check=False)
    except OSError as error:
        return f"the compiler {os.environ['CXX']} cannot be run ({error.strerror})"
    last = done.stderr.strip().splitlines()[-1:]
    return f"`{probe}` fails: {''.join(last)}" if done.returncode else None


def cpu_library() -> Extension:
    """The library of csrc/cpu, on torch's stable ABI: one file for every Python and torch."""
    from torch.utils.cpp_extension import CppExtension, include_paths

    major, minor = OLDEST_TORCH
    optimisation = shlex.split(os.environ.get("CXXFLAGS", "-O3 -g0"))
    # Error messages name files; those of the machine it was built on are nobody's business.
    shown = {os.getcwd(): ".", include_paths()[0]: "torch"}
    renamed = [f"-ffile-prefix-map={path}={name}" for path, name in shown.items()]
    return CppExtension(
        "memattn._cpu",
        sorted(map(str, Path("csrc/cpu").glob("*.cpp"))),
        depends=["setup.py", *sorted(map(str, Path("csrc").rglob("*.h")))],
        include_dirs=[str(Path("csrc").absolute())],
        define_macros=[("TORCH_TARGET_VERSION", f"0x{major:02x}{minor:02x}000000000000")],
        extra_compile_args=[*optimisation, *renamed, "-std=c++20", "-fvisibility=hidden"],
        py_limited_api=True,
    )


def compiled() -> dict[str, object]:
    """The arguments of `setup` that build the library; none where it cannot be compiled."""
    os.environ.setdefault("CXX", "c++")  # the linker is then the compiler's too
    reason = why_not_compiled()
    if reason is not None:
        print(f"memattn is built without its compiled library: {reason}", file=sys.stderr)
        return {}
    from torch.utils.cpp_extension import BuildExtension

    return {"ext_modules": [cpu_library()], "cmdclass": {"build_ext": BuildExtension}}


setup(
    packages=[
        *find_packages(include=["memattn", "memattn.*"]),
        *(f"memattn.kernels.{name}" for name in KERNEL_PACKAGES),
        "memattn.benchmarks",
    ],
    package_dir={
        "memattn.benchmarks": "benchmarks",
        **{f"memattn.kernels.{n}": f"kernels/{n}" for n in KERNEL_PACKAGES if "." not in n},
    },
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
    **compiled(),
)

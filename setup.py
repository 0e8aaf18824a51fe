"""What pyproject.toml cannot say: where the packages lie, and the compiled library.

Each child of kernels/ installs as memattn.kernels.<child>, benchmarks/ as memattn.benchmarks.
csrc/cpu becomes memattn/_cpu.abi3.so where torch and a compiler for C++20 (CXX, else c++) are
there, csrc/cuda memattn/_cuda.abi3.so where besides nvcc is and torch has CUDA. Elsewhere the
package is built without it, and one line says why. With the compilers there, what they cannot
compile is an error.

MEMATTN_CUDA is auto, off, or on, which compiles with any torch. TORCH_CUDA_ARCH_LIST names what it
is compiled for: without it compute capability 8.0, 9.0, and later ones by way of PTX.
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


def why_not_cuda() -> str | None:
    """Say why the CUDA kernels are not compiled, or None."""
    import torch
    from torch.utils import cpp_extension

    # A torch without CUDA does not look for it.
    cpp_extension.CUDA_HOME = cpp_extension.CUDA_HOME or os.environ.get("CUDA_HOME")
    home = cpp_extension.CUDA_HOME
    wanted = os.environ.get("MEMATTN_CUDA", "auto")
    if wanted not in ("auto", "on", "off"):
        raise SystemExit(f"MEMATTN_CUDA: got {wanted!r}, expected auto, on or off")
    if wanted == "off":
        return "MEMATTN_CUDA is off"
    if wanted == "auto" and torch.version.cuda is None:
        return "this torch has no CUDA"
    nvcc = Path(home or "", "bin", "nvcc")
    if home is None or not nvcc.exists():
        reason = f"CUDA_HOME: got {home or 'nothing'}, expected the folder of bin/nvcc"
        if wanted == "on":
            raise SystemExit(reason)
        return reason
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    release = re.findall(r"release (\d+)\.\d+", said)
    expected = (torch.version.cuda or "").split(".")[0]
    if wanted == "auto" and release != [expected]:  # torch builds nothing with another
        return f"got nvcc of CUDA {''.join(release)}, expected that of torch, {expected}"
    return None


def library(name: str, sources: str, **arguments: object) -> Extension:
    """A library of csrc, on torch's stable ABI: one file for every Python and torch."""
    from torch.utils.cpp_extension import CppExtension

    major, minor = OLDEST_TORCH
    return CppExtension(
        f"memattn._{name}",
        sorted(map(str, Path("csrc", name).glob(sources))),
        depends=["setup.py", *sorted(map(str, Path("csrc").rglob("*.h")))],
        include_dirs=[str(Path("csrc").absolute())],
        define_macros=[("TORCH_TARGET_VERSION", f"0x{major:02x}{minor:02x}000000000000")],
        py_limited_api=True,
        **arguments,
    )


def renamed() -> list[str]:
    """Error messages name files; those of the machine it was built on are nobody's business."""
    from torch.utils.cpp_extension import include_paths

    shown = {os.getcwd(): ".", include_paths()[0]: "torch"}
    return [f"-ffile-prefix-map={path}={name}" for path, name in shown.items()]


def cpu_library() -> Extension:
    """The library of csrc/cpu."""
    optimisation = shlex.split(os.environ.get("CXXFLAGS", "-O3 -g0"))
    flags = [*optimisation, *renamed(), "-std=c++20", "-fvisibility=hidden"]
    return library("cpu", "*.cpp", extra_compile_args=flags)


def cuda_library() -> Extension:
    """The library of csrc/cuda. CUDA's runtime is part of it, so that torch may have another."""
    from torch.utils.cpp_extension import CUDA_HOME

    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0 9.0+PTX")
    host = [f"-Xcompiler={flag}" for flag in ("-fvisibility=hidden", *renamed())]
    return library(
        "cuda",
        "*.cu",
        extra_compile_args={"cxx": [], "nvcc": ["-O3", "-std=c++20", "-DUSE_CUDA", *host]},
        library_dirs=[str(folder) for folder in Path(CUDA_HOME).glob("targets/*/lib")],
        libraries=["cudart_static", "dl", "rt", "pthread"],
        # Where torch has CUDA, libtorch brings the library that knows the current stream.
        extra_link_args=["-Wl,--no-as-needed", "-ltorch"],
    )


def compiled() -> dict[str, object]:
    """The arguments of `setup` that build the libraries; none where nothing can be compiled."""
    os.environ.setdefault("CXX", "c++")  # the linker is then the compiler's too
    reason = why_not_compiled()
    if reason is not None:
        print(f"memattn is built without its compiled libraries: {reason}", file=sys.stderr)
        return {}
    from torch.utils.cpp_extension import BuildExtension

    libraries = [cpu_library()]
    reason = why_not_cuda()
    if reason is None:
        libraries.append(cuda_library())
    else:
        print(f"memattn is built without its CUDA library: {reason}", file=sys.stderr)
    return {"ext_modules": libraries, "cmdclass": {"build_ext": BuildExtension}}


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

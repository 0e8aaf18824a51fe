"""The CUDA kernels compiled for GPUs that are not here: registers, spills, instructions."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memattn import _extension
from memattn.kernels.cuda.limits import DIMS

ROOT = Path(__file__).parents[2]
CAPABILITIES = (80, 90)
# By the padded number of keys. Of a multiprocessor's 65 536 registers, 168 are three blocks' share.
MOST_REGISTERS = {32: 168, 80: 200, 128: 248}

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the path")

ONE_KERNEL = """
#include "cuda/short_keys_launch.h"
namespace memattn::cuda {{
template __global__ void short_keys_kernel<Dtype::{dtype}, {dim}, {keys}, true>(
    const __grid_constant__ ForwardArguments);
}}
"""


def compile_to(cubin, source, capability):
    """Compile for a capability; the registers and the bytes spilled of each kernel, by its name."""
    architecture = f"arch=compute_{capability},code=sm_{capability}"
    command = ["nvcc", "-std=c++20", "-O3", f"-I{ROOT / 'csrc'}", "-gencode", architecture]
    command += ["-Xptxas", "-v", "-cubin", "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pattern = (
        r"Function properties for (\S*short_keys_kernel\S*)\n\s*(\d+) bytes stack frame, "
        r"(\d+) bytes spill stores, (\d+) bytes spill loads\n.*?Used (\d+) registers"
    )
    return {
        name: (int(registers), int(stack) + int(stores) + int(loads))
        for name, stack, stores, loads, registers in re.findall(pattern, done.stderr)
    }


def assembly(cubin):
    triton = pytest.importorskip("triton", reason="triton, which has a disassembler, is not here")
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return subprocess.run([tool, "-c", cubin], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("dtype", "dim", "keys", "capability"),
    [("kBFloat16", 40, 80, 90), ("kFloat16", 160, 128, 80)],
)
def test_a_kernel_keeps_to_its_registers_and_has_the_instructions_meant(
    tmp_path, dtype, dim, keys, capability
):
    source = tmp_path / "kernel.cu"
    source.write_text(ONE_KERNEL.format(dtype=dtype, dim=dim, keys=keys), encoding="utf-8")
    found = compile_to(tmp_path / "kernel.cubin", source, capability)
    ((registers, spilled),) = found.values()
    assert spilled == 0
    assert registers <= MOST_REGISTERS[keys]
    code = assembly(tmp_path / "kernel.cubin")
    steps = -(-dim // 16)
    # All products of 16 queries: with keys, and with values.
    products = steps * keys // 8 + keys // 16 * dim // 8
    assert len(re.findall(r"\bHMMA\.16816\.F32", code)) == products
    assert len(re.findall(r"\bLDSM\.16\.M88\.4", code)) == steps + steps * keys // 16
    assert len(re.findall(r"\bLDSM\.16\.MT88\.4", code)) == keys // 16 * -(-dim // 16)
    assert len(re.findall(r"\bMUFU\.EX2", code)) == keys // 2
    assert re.search(r"\bLDGSTS\.E\S*\.128", code)
    assert re.search(r"\bSTG\.E\S*\.128", code)


@pytest.mark.proof
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(tmp_path, dim, capability):
    source = ROOT / "csrc" / "cuda" / f"short_keys_{dim}.cu"
    found = compile_to(tmp_path / "kernels.cubin", source, capability)
    assert len(found) == 2 * 3 * 2  # dtypes, numbers of keys, with statistics and without
    for name, (registers, spilled) in found.items():
        (keys,) = (each for each in MOST_REGISTERS if f"Li{dim}ELi{each}E" in name)
        assert spilled == 0, name
        assert registers <= MOST_REGISTERS[keys], (name, registers)


@pytest.mark.proof
def test_the_library_builds_and_has_no_cpp_symbol_of_torch(tmp_path):
    folders = [f"--build-{name}={tmp_path / name}" for name in ("lib", "temp")]
    # nvcc on the path may be a script elsewhere.
    said = subprocess.run(
        ["nvcc", "--dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=True
    ).stderr
    home = re.search(r"TOP=(\S+)", said)[1]
    settings = {"MEMATTN_CUDA": "on", "TORCH_CUDA_ARCH_LIST": "9.0", "CUDA_HOME": home}
    environment = {**os.environ, **settings}
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", *folders],
        cwd=ROOT,
        env=environment,
        check=True,
    )
    library = tmp_path / "lib" / "memattn" / _extension.path("cuda").name
    undefined = subprocess.run(
        ["nm", "-D", "--undefined-only", "-C", library], capture_output=True, text=True, check=True
    ).stdout
    # The symbol that only a torch with CUDA has, by way of the library that brings it.
    assert re.search(r"\bw aoti_torch_get_current_cuda_stream\b", undefined)
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True)
    assert "[libtorch.so]" in needed.stdout
    assert str(ROOT).encode() not in library.read_bytes()
    assert re.findall(r".*\b(?:at|c10|caffe2|torch)::.*", undefined) == []
    assert "libcudart" not in undefined

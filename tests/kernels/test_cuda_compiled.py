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
# For these two. Of a multiprocessor's 65 536, a block of four warps may take half at 255 each, one
# of eight all of them; 168 are the share of three blocks of four warps.
MOST_REGISTERS = {32: 168, 80: 240, 128: 248, "long": 232}

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on the path")

ONE_KERNEL = """
#include "cuda/attend.h"
namespace memattn::cuda {{
template __global__ void {kernel}<Dtype::{dtype}, {arguments}, true>(
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
        r"Function properties for (\S*_keys_kernel\S*)\n\s*(\d+) bytes stack frame, "
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


def compile_one(folder, capability, kernel, dtype, *arguments):
    """Compile one kernel, with statistics; its registers, and its disassembly."""
    arguments = ", ".join(map(str, arguments))
    source = folder / "kernel.cu"
    source.write_text(
        ONE_KERNEL.format(kernel=kernel, dtype=dtype, arguments=arguments), encoding="utf-8"
    )
    ((registers, spilled),) = compile_to(folder / "kernel.cubin", source, capability).values()
    assert spilled == 0
    code = assembly(folder / "kernel.cubin")
    assert re.search(r"\bLDGSTS\.E\S*\.128", code)
    return registers, code


def count(instruction, code):
    return len(re.findall(rf"\b{instruction}", code))


@pytest.mark.parametrize(
    ("dtype", "dim", "keys", "capability"),
    [("kBFloat16", 40, 80, 90), ("kFloat16", 160, 128, 80)],
)
def test_short_keys_keep_to_their_registers_and_have_the_instructions_meant(
    tmp_path, dtype, dim, keys, capability
):
    registers, code = compile_one(tmp_path, capability, "short_keys_kernel", dtype, dim, keys)
    assert registers <= MOST_REGISTERS[keys]
    steps = -(-dim // 16)
    # All products of 16 queries: with keys, and with values.
    assert count(r"HMMA\.16816\.F32", code) == steps * keys // 8 + keys // 16 * dim // 8
    assert count(r"LDSM\.16\.M88\.4", code) == steps + steps * keys // 16
    assert count(r"LDSM\.16\.MT88\.4", code) == keys // 16 * steps
    assert count(r"MUFU\.EX2", code) == keys // 2
    assert re.search(r"\bSTG\.E\S*\.128", code)


def test_long_keys_keep_to_their_registers_and_have_the_instructions_meant(tmp_path):
    registers, code = compile_one(tmp_path, 90, "long_keys_kernel", "kBFloat16", 72)
    assert registers <= 144  # at 300 keys of that dimension memory is for one block, not registers
    # Products with 16 keys, along 80 of D: once for the totals, once more beside the values.
    assert count(r"HMMA\.16816\.F32", code) == 2 * 5 * 2 + 9
    assert count(r"LDSM\.16\.M88\.4", code) == 5 + 2 * 5
    assert count(r"LDSM\.16\.MT88\.4", code) == 5


@pytest.mark.proof
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills(tmp_path, dim, capability):
    source = ROOT / "csrc" / "cuda" / f"attend_{dim}.cu"
    found = compile_to(tmp_path / "kernels.cubin", source, capability)
    assert len(found) == 2 * 4 * 2  # dtypes, numbers of keys, with statistics and without
    for name, (registers, spilled) in found.items():
        keys = re.search(rf"Li{dim}ELi(\d+)E", name)
        most = MOST_REGISTERS[int(keys[1]) if keys else "long"]
        assert spilled == 0, name
        assert registers <= most, (name, registers)


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

"""What Triton makes of the kernels for a GPU that is not here: registers, spills, instructions.

Triton's wheel brings the assembler and the disassembler, so this needs no GPU and no toolkit:
`python -m memattn.benchmarks.compiled FILE.csv` compiles every case and writes a table.
"""

import csv
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, CompiledKernel

from memattn.benchmarks.cases import DTYPES
from memattn.kernels.triton import fold
from memattn.kernels.triton.backward import backward_launches
from memattn.kernels.triton.columns import column_launch
from memattn.kernels.triton.forward import short_launch
from memattn.kernels.triton.jit.primitives import UNALIGNED
from memattn.kernels.triton.launch import TENSOR_MEMORY_MAJORS, Form, Launch
from memattn.kernels.triton.long_keys import long_launch
from memattn.kernels.triton.tiles import Tiles, backward_tiles, column_tiles, forward_tiles

# A100, and GeForce and RTX 30 and 40 with it; H100 and H200; B200. RTX 50 is like the first.
CAPABILITIES = (80, 90, 100)
_LIKE_80 = 120
# Every way that depth is cut up, most of them with and without a rest that is not there.
DIMS = (8, 24, 40, 64, 72, 80, 88, 96, 112, 128, 136, 160, 184, 192, 248, 256)
MODEL_DIMS = (40, 64, 80, 160)
# Every way that keys are; only the last are not one tile.
KEYS = (7, 20, 50, 77, 90, 333)
SUMS = ("query_gradient", "key_gradient", "normalisers", "columns")
# What each has beside the output: nothing; the statistics; also a token's map and the logsumexp;
# also key_bias and begin_scale.
ASKED = ("plain", "statistics", "token", "everything")
# Beside these, of models' dimensions: statistics with key_bias alone, as a mask is; with the
# logsumexp that a backward wants; of tensors whose strides are no multiples of eight.
ALSO_ASKED = ("masked", "training", "odd")
# dtype and capability: where one has the same code as another, or nearly, models' dimensions do.
_GRID = (
    *((dtype, capability, DIMS) for dtype in ("bf16", "fp32") for capability in CAPABILITIES),
    *(("fp16", capability, MODEL_DIMS[:1]) for capability in CAPABILITIES),
    ("tf32", 90, MODEL_DIMS),
    ("bf16", _LIKE_80, MODEL_DIMS),
)

_POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
# Pointers to tensors of the inputs' dtype; all others are float32, or the token's int64.
_INPUTS = ("query", "key", "value", "output", "grad_output", "grad_query")
# Pointers that are None where a constant has this value.
_ABSENT = (
    ("bias_ptr", "HAS_BIAS", False),
    ("begin_scale_ptr", "HAS_BEGIN", False),
    ("token_ptr", "HAS_TOKEN", False),
    ("value_ptr", "OUTPUT", False),
    ("output_ptr", "OUTPUT", False),
    ("row_max_ptr", "NORMALISERS", False),
    ("total_ptr", "NORMALISERS", False),
    ("total_ptr", "IS_LOGSUMEXP", True),
    ("logsumexp_ptr", "LOGSUMEXP", False),
)
_BIASED = ("masked", "everything")
_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Ampere's and Hopper's instructions for 16-bit numbers, and Blackwell's.
_MATRIX = r"\b(HMMA|HGMMA|UTCHMMA)\b"


class Case(NamedTuple):
    """One kernel in one form.

    Attributes:
        kernel: "forward", "query_gradient", "key_gradient", "normalisers", "columns" or "fold".
        dtype: Of query, key and value, by its name in `DTYPES`; or tf32, which is fp32 with such
            products.
        dim: D.
        keys: Lk, or the number of columns.
        asked: One of `ASKED` or `ALSO_ASKED`.
        capability: 10 * major + minor, e.g. 90.
    """

    kernel: str
    dtype: str
    dim: int
    keys: int
    asked: str
    capability: int


class Compiled(NamedTuple):
    """One kernel as a GPU would run it.

    Attributes:
        registers: Registers per thread, of 255.
        spilled: Bytes per thread that did not fit them.
        shared: Shared memory per program in bytes.
        instructions: How many there are.
        matrix: How many of them are for tensor cores.
        wide: Loads from global memory of 16 bytes per thread.
        narrow: Those of 2.
    """

    registers: int
    spilled: int
    shared: int
    instructions: int
    matrix: int
    wide: int
    narrow: int


def cases() -> Iterator[Case]:
    """Every case that is looked at.

    All keys that are not one tile are alike but for a bias that is looked through before; those of
    float32 never are one. Other keys than 77 are asked for the most only.
    """
    for dtype, capability, dims in _GRID:
        keys = KEYS if dtype.endswith("16") else KEYS[-1:]
        for dim, length, asked in itertools.product(dims, keys, ASKED):
            if length in (77, KEYS[-1]) or asked in ASKED[2:]:
                yield Case("forward", dtype, dim, length, asked, capability)
        for dim, kernel, asked in itertools.product(dims, SUMS, ("statistics", "everything")):
            yield Case(kernel, dtype, dim, KEYS[-1], asked, capability)
    for capability, dim, asked in itertools.product(CAPABILITIES, MODEL_DIMS, ALSO_ASKED):
        for length in (77, KEYS[-1]):
            yield Case("forward", "bf16", dim, length, asked, capability)
        for kernel in SUMS:
            # Only columns differ by where their rows' totals come from.
            if asked != "training" or kernel == "columns":
                yield Case(kernel, "bf16", dim, KEYS[-1], asked, capability)
    for capability in CAPABILITIES:
        yield Case("fold", "fp32", 8, 77, "statistics", capability)


def tiles_of(case: Case) -> Tiles:
    """What a case's kernel is launched with."""
    dtype = _dtype(case)
    tensor_memory = case.capability // 10 in TENSOR_MEMORY_MAJORS
    if case.kernel.endswith("gradient"):
        return backward_tiles(case.dim, dtype, tensor_memory=tensor_memory)
    if case.kernel != "forward":
        return column_tiles(case.dim, dtype, tensor_memory=tensor_memory)
    biased = case.asked in _BIASED
    return forward_tiles(case.keys, case.dim, dtype, biased=biased, tensor_memory=tensor_memory)


def compile_for(target: GPUTarget, case: Case) -> CompiledKernel:
    """Compile a case as its launcher would, for any GPU."""
    launch = _launch(case)
    names = launch.kernel.arg_names
    absent = [name for name, flag, value in _ABSENT if launch.constants.get(flag) is value]
    constants = launch.constants | {name: None for name in absent if name in names}
    dtype = _dtype(case)
    source = ASTSource(
        fn=launch.kernel,
        signature={
            name: "constexpr" if name in constants else _type(name, dtype) for name in names
        },
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={
            (index,): [["tt.divisibility", 16]]  # torch aligns what it allocates
            for index, name in enumerate(names)
            if name.endswith("_ptr") and name not in constants and name not in UNALIGNED
        },
    )
    return triton.compile(source, target=target, options=launch.options)


def compiled(case: Case) -> Compiled:
    """Compile a case for NVIDIA's GPUs, and read what came of it."""
    made = compile_for(GPUTarget("cuda", case.capability, 32), case)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = _run("cuobjdump", "--dump-resource-usage", file.name)
        assembly = _run("nvdisasm", "--print-code", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+).* LOCAL:(\d+)", usage)
    assert found is not None, usage
    registers, stack, local = map(int, found.groups())
    return Compiled(
        registers=registers,
        spilled=stack + local,
        shared=made.metadata.shared,
        instructions=_count(r"/\*[0-9a-f]{4,}\*/", assembly),
        matrix=_count(_MATRIX, assembly),
        wide=_count(r"\bLDG(STS)?\.E\S*\.128", assembly),
        narrow=_count(r"\bLDG(STS)?\.E\S*\.U?16", assembly),
    )


def _launch(case: Case) -> Launch:
    """How a case is launched."""
    if case.kernel == "fold":
        return fold.LAUNCH
    everything, is_biased = case.asked == "everything", case.asked in _BIASED
    precision = "tf32" if case.dtype == "tf32" else "ieee"
    unit = 1 if case.asked == "odd" else 8
    form = Form(_dtype(case), case.dim, case.keys, unit, precision, is_biased, everything)
    tiles = tiles_of(case)
    match case.kernel:
        case "query_gradient":
            return backward_launches(form, tiles)[0]
        case "key_gradient":
            return backward_launches(form, tiles)[1]
        case "columns":  # of joint attention, or the second look at long keys
            is_second = case.asked in ("training", "everything")
            return column_launch(form, tiles, has_token=everything, is_logsumexp=not is_second)
        case "normalisers":
            return long_launch(form, tiles, output=False, normalisers=True, logsumexp=False)
    statistics, has_token = case.asked != "plain", case.asked in ASKED[2:]
    logsumexp = has_token or case.asked == "training"
    if tiles.block_k:
        return long_launch(form, tiles, output=True, normalisers=statistics, logsumexp=logsumexp)
    return short_launch(
        form, tiles, has_token=has_token, statistics=statistics, logsumexp=logsumexp
    )


def _dtype(case: Case) -> torch.dtype:
    return torch.float32 if case.dtype == "tf32" else DTYPES[case.dtype]


def _type(name: str, dtype: torch.dtype) -> str:
    if not name.endswith("_ptr"):
        return "fp32" if name == "scale" else "i32"
    if name == "token_ptr":
        return "*i64"
    return _POINTERS[dtype if name.removesuffix("_ptr") in _INPUTS else torch.float32]


def _run(tool: str, *arguments: str) -> str:
    command = [str(_TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text))


def _in_a_process(case: Case) -> Compiled:
    torch.set_num_threads(1)
    return compiled(case)


def main(file: Path) -> None:
    """Compile every case and write the table."""
    every = list(cases())
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        rows = list(tqdm(pool.map(_in_a_process, every), total=len(every), desc="compile"))
    with file.open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(("triton", *Case._fields, *Compiled._fields))
        for case, row in zip(every, rows, strict=True):
            table.writerow((triton.__version__, *case, *row))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""The CUDA kernels' source, compiled for the processor at hand and run there.

What a warp does together is done one lane after the other (`cuda/instructions.h`), so that indices,
fragments, masks, groups of copies and most barriers are put to the test where there is no GPU: not
those of a warp before a matrix is loaded, where its lanes meet anyway. It takes CPU tensors in 16
bits; the op's own checks and launches are not part of it.
"""

import ctypes
import functools
import subprocess
import tempfile
from pathlib import Path

import torch

from memattn.types import CrossAttentionResult

HERE = Path(__file__).parent
MOST_SHORT_KEYS = 128
MOST_BLOCKS = 4  # few, so that a block has several chunks and goes from head to head
LOG2_E = 1.4426950408889634
# Those of run.cpp: D, and the numbers of keys that there is a kernel for, rounded up.
SHORT = {
    **dict.fromkeys((16, 40, 80, 128, 160), (80,)),
    **dict.fromkeys((72, 112), (128,)),
    96: (32,),
    **dict.fromkeys((8, 64), (32, 80)),
    32: (80, 128),
}
LONG = (8, 16, 32, 40, 72, 112)


class Rows(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("position", ctypes.c_int),
    )

    @classmethod
    def of(cls, tensor):
        return cls(tensor.data_ptr(), *tensor.stride()[:3])


class Forward(ctypes.Structure):
    _fields_ = (
        *((name, Rows) for name in ("query", "key", "value")),
        *((name, ctypes.c_void_p) for name in ("key_bias", "begin_scale", "token", "output")),
        *((name, ctypes.c_void_p) for name in ("mass", "entropy", "token_map", "logsumexp")),
        *((name, ctypes.c_int) for name in ("heads", "queries", "keys")),
        *((name, ctypes.c_int) for name in ("padded_keys", "tiles", "chunks")),
        *((name, ctypes.c_int) for name in ("all_chunks", "blocks")),
        ("scale_log2", ctypes.c_float),
    )


class Fold(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("mass", "entropy")),
        *((name, ctypes.c_void_p) for name in ("folded_mass", "folded_entropy")),
        ("chunks", ctypes.c_int),
        ("keys", ctypes.c_int),
    )


@functools.cache
def library():
    """The compiled library; it is unlinked at once and stays loaded."""
    csrc = HERE.parents[2] / "csrc"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cuda_on_cpu.so"
        command = ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
        command += ["-Wno-unknown-pragmas", f"-I{HERE}", f"-I{csrc}"]
        command += ["-include", "cuda/instructions.h", str(HERE / "run.cpp"), "-o", str(file)]
        subprocess.run(command, check=True)
        return ctypes.CDLL(str(file))


def plan(queries, keys):
    """Tiles per chunk and chunks per head."""
    tiles, chunks = ctypes.c_int(), ctypes.c_int()
    library().cut_up(queries, keys, ctypes.byref(tiles), ctypes.byref(chunks))
    return tiles.value, chunks.value


def address(tensor):
    return None if tensor is None else tensor.data_ptr()


def padded(dim, keys):
    """What a number of keys is rounded up to; None if no kernel for it is compiled here."""
    if keys > MOST_SHORT_KEYS:
        return library().padded(keys) if dim in LONG else None
    return min((each for each in SHORT.get(dim, ()) if each >= keys), default=None)


def readable(tensor):
    """As the op hands it on: what can be copied by 16 bytes."""
    aligned = tensor.stride(3) == 1 and tensor.data_ptr() % 16 == 0
    aligned &= all(
        stride % 8 == 0 or size == 1
        for size, stride in zip(tensor.shape[:3], tensor.stride()[:3], strict=True)
    )
    return tensor if aligned else tensor.clone(memory_format=torch.contiguous_format)


def cross_attention(request, *, blocks=MOST_BLOCKS, backwards=False):
    """A request as the kernels compute it.

    With so many blocks at most. `backwards`: the last thread of a block goes first.
    """
    query, key, value = map(readable, (request.query, request.key, request.value))
    key_bias, begin_scale, token = (
        None if tensor is None else tensor.to(dtype).contiguous()
        for tensor, dtype in (
            (request.key_bias, torch.float32),
            (request.begin_scale, torch.float32),
            (request.token, torch.int64),
        )
    )
    batch, heads, queries, dim = query.shape
    keys = key.shape[2]
    tiles, chunks = plan(queries, keys)
    output = query.new_full((batch, queries, heads, dim), torch.nan)
    parts = torch.full((2, batch, heads, chunks, keys), torch.nan)
    sums = torch.full((2, batch, heads, keys), torch.nan)
    token_map, logsumexp = torch.full((2, batch, heads, queries), torch.nan)
    call = Forward(
        *map(Rows.of, (query, key, value)),
        *map(address, (key_bias, begin_scale, token, output)),
        *(address(part) if request.statistics else None for part in parts),
        address(token_map) if token is not None else None,
        address(logsumexp) if request.logsumexp else None,
        *(heads, queries, keys, padded(dim, keys), tiles, chunks),
        *(batch * heads * chunks, min(batch * heads * chunks, blocks)),
        request.scale * LOG2_E,
    )
    assert library().attend(
        ctypes.byref(call), query.dtype == torch.bfloat16, dim, request.statistics, backwards
    )
    fold = Fold(*map(address, (*parts, *sums)), chunks, keys)
    if request.statistics:
        library().fold(ctypes.byref(fold), batch * heads)
    return CrossAttentionResult(
        output.transpose(1, 2),
        sums[0] if request.statistics else None,
        sums[1] if request.statistics else None,
        token_map if token is not None else None,
        logsumexp if request.logsumexp else None,
    )

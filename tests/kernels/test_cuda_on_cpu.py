"""The CUDA kernels without a GPU: their source, run on the processor, against float64."""

import ctypes
import re

import pytest
import torch

from memattn.ops.contract import cross_attention_request
from memattn.types import CrossAttentionResult
from tests.compilers import needs_compiler
from tests.kernels import cuda_on_cpu
from tests.kernels.cross_attention import assert_result_within_budget, extras, inputs
from tests.kernels.programs import run_program

pytestmark = needs_compiler

# batch, heads, queries, keys, dimension: few and many keys of each size, every dimension there is,
# queries and blocks beyond the end, warps with nothing to do, sums of several blocks, and blocks of
# so many tiles that their memory is used again.
SHAPES = [
    (2, 3, 70, 77, 40),
    (1, 2, 5, 1, 64),
    (1, 1, 130, 120, 72),
    (1, 2, 64, 77, 160),
    (1, 2, 40, 77, 64),
    (1, 1, 4100, 9, 8),
    (1, 1, 33, 80, 80),
    (1, 1, 17, 16, 96),
    (1, 1, 20, 100, 112),
    (1, 1, 16, 64, 128),
    (1, 1, 2050, 90, 32),
    (2, 2, 70, 129, 40),
    (1, 1, 20, 300, 72),
    (1, 1, 140, 320, 112),
    (1, 1, 2100, 154, 8),
]
DTYPES = [torch.float16, torch.bfloat16]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def request_of(tensors, **arguments):
    defaults = dict.fromkeys(("key_bias", "begin_scale", "token", "scale"))
    return cross_attention_request(*tensors, **{"statistics": True, **defaults, **arguments})


@every_shape
@every_dtype
@pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])
def test_every_result_is_within_the_error_budget(shape, dtype, everything):
    tensors = inputs(shape, dtype)
    arguments = extras(shape) if everything else {}
    request = request_of(tensors, **arguments)._replace(logsumexp=True)
    result = cuda_on_cpu.cross_attention(request)
    assert_result_within_budget(result, tensors, arguments)
    plain = request_of(tensors, **arguments, statistics=False)
    assert torch.equal(cuda_on_cpu.cross_attention(plain).output, result.output)


@every_shape
def test_threads_may_run_in_any_order(shape):
    request = request_of(inputs(shape, torch.float16), **extras(shape))
    forwards = cuda_on_cpu.cross_attention(request)
    backwards = cuda_on_cpu.cross_attention(request, backwards=True)
    assert all(torch.equal(*pair) for pair in zip(forwards[:4], backwards[:4], strict=True))


@pytest.mark.parametrize("shape", [(2, 3, 70, 77, 40), (2, 2, 300, 129, 40)], ids=str)
def test_results_are_the_same_bits_whichever_block_computes_them(shape):
    request = request_of(inputs(shape, torch.float16), **extras(shape))
    alone = cuda_on_cpu.cross_attention(request, blocks=1)
    for blocks in (2, 5, 7, 1000):
        shared = cuda_on_cpu.cross_attention(request, blocks=blocks)
        assert all(torch.equal(*pair) for pair in zip(alone[:4], shared[:4], strict=True))


@pytest.mark.parametrize("keys", [128, 129])
@pytest.mark.parametrize("queries", [1, 63, 64, 65, 128, 129, 1024, 2047, 2048, 4096, 65536])
def test_chunks_have_every_query_once(queries, keys):
    tile = 64 if keys == 128 else 128
    tiles, chunks = cuda_on_cpu.plan(queries, keys)
    assert 1 <= tiles <= 4
    assert (chunks - 1) * tiles * tile < queries <= chunks * tiles * tile
    assert chunks >= min(16, -(-queries // tile))


@pytest.mark.parametrize(
    ("chunks", "expected"), [(1, 1), (263, 263), (264, 264), (265, 264), (2**31 - 1, 264)]
)
def test_there_are_no_more_blocks_than_a_gpu_runs_at_a_time(chunks, expected):
    assert cuda_on_cpu.library().blocks(ctypes.c_int64(chunks), 132, 2) == expected


@every_dtype
def test_many_keys_of_which_few_count(dtype):
    shape = (3, 1, 33, 300, 40)
    key_bias = torch.full((3, 300), -torch.inf)
    key_bias[0, 299] = key_bias[1, 17] = 1.0  # and no key at all in the last sample
    arguments = {**extras(shape), "key_bias": key_bias}
    tensors = inputs(shape, dtype)
    request = request_of(tensors, **arguments)._replace(logsumexp=True)
    result = cuda_on_cpu.cross_attention(request)
    for got, expected in zip(result, (0.0, 0.0, 0.0, 0.0, 0.0), strict=True):
        assert (got[2] == expected).all()
    sure = [tensor[:2] for tensor in tensors]
    arguments = {name: value[:2] for name, value in arguments.items()}
    assert_result_within_budget(CrossAttentionResult(*(f[:2] for f in result)), sure, arguments)


def test_edges_and_layouts_are_right():
    run()


@pytest.mark.proof
def test_laws_hold_and_every_result_is_within_the_error_budget():
    run("everything")


def run(*arguments):
    *_, summary = run_program("emulated", *arguments)
    assert int(re.search(r"(\d+) passed", summary)[1]) > 100

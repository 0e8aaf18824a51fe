"""What only a GPU has: graphs, streams, compilation for the device. Each backend found there."""

from collections import Counter

import pytest
import torch

import memattn
from memattn._extension import path
from tests.gpus import needs_gpu
from tests.kernels import sanitized
from tests.kernels.cross_attention import extras, inputs

pytestmark = [pytest.mark.gpu, needs_gpu]
SHAPES = [(2, 3, 130, 77, 40), (1, 2, 200, 300, 72), (1, 2, 200, 333, 64)]
DTYPES = [torch.float32, torch.bfloat16]


def able():
    """Compiled backends that run on the GPU here."""
    if not torch.cuda.is_available():
        return []
    tiny = torch.zeros(1, 1, 1, 64, device="cuda", dtype=torch.float16)
    reasons = memattn.explain(tiny, tiny, tiny)
    return [name for name, reason in reasons if reason is None and name != "reference"]


@pytest.mark.skipif(not path("cuda").exists(), reason="the cuda library is not compiled here")
@pytest.mark.skipif(
    torch.cuda.is_available() and torch.cuda.get_device_properties(0).major < 8,
    reason="the cuda kernels want compute capability 8.0",
)
def test_where_there_is_the_library_there_is_the_backend():
    assert "cuda" in able()


def attention(backend):
    def call(tensors, arguments):
        return memattn.cross_attention(*tensors, **arguments, backend=backend)

    return call


def columns(backend):
    def call(tensors, arguments):
        query, key, _ = tensors
        given = {name: arguments[name] for name in ("key_bias", "token") if name in arguments}
        return memattn.column_statistics(query, key, **given, backend=backend)

    return call


def gradients(backend):
    def call(tensors, arguments):
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        arguments = {name: arguments[name] for name in arguments if name != "token"}
        output = memattn.cross_attention(*leaves, **arguments, backend=backend).output
        return torch.autograd.grad(output, leaves, torch.ones_like(output))

    return call


CALLS = [attention, columns, gradients]
every_call = pytest.mark.parametrize("make", CALLS, ids=lambda make: make.__name__)
every_backend = pytest.mark.parametrize("backend", able() or ["no GPU"])
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
with_extras = pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])


def found(result):
    return [tensor for tensor in result if tensor is not None]


def same(first, second):
    return all(map(torch.equal, found(first), found(second)))


@every_call
@every_backend
@every_shape
@every_dtype
@with_extras
def test_a_replayed_graph_gives_the_eager_bits(make, backend, shape, dtype, everything):
    call = make(backend)
    tensors = inputs(shape, dtype, "cuda")
    arguments = extras(shape, "cuda") if everything else {}
    call(tensors, arguments)  # compiles, which cannot be captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call(tensors, arguments)
    for tensor in found(captured):
        tensor.fill_(torch.nan)
    # The graph reads what is in the captured tensors when it is replayed.
    for tensor in tensors:
        tensor.copy_(torch.randn_like(tensor))
    graph.replay()
    assert same(captured, call(tensors, arguments))


@every_call
@every_backend
def test_calls_on_several_streams_do_not_disturb_each_other(make, backend):
    call = make(backend)
    many = [inputs((2, 4, 1000, 77, 40), torch.float16, "cuda") for _ in range(6)]
    expected = [call(tensors, {}) for tensors in many]
    streams = [torch.cuda.Stream() for _ in many]
    torch.cuda.synchronize()
    for _ in range(5):
        actual = []
        for stream, tensors in zip(streams, many, strict=True):
            with torch.cuda.stream(stream):
                actual.append(call(tensors, {}))
        torch.cuda.synchronize()
        assert all(map(same, actual, expected))


@pytest.mark.slow
@pytest.mark.parametrize("make", [attention, columns], ids=lambda make: make.__name__)
@every_backend
@with_extras
def test_a_compiled_graph_on_the_gpu_gives_the_eager_bits(make, backend, everything):
    call = make(backend)
    compiled = torch.compile(call, fullgraph=True)
    for shape in SHAPES:
        tensors = inputs(shape, torch.bfloat16, "cuda")
        arguments = extras(shape, "cuda") if everything else {}
        assert same(compiled(tensors, arguments), call(tensors, arguments))


@every_backend
@every_dtype
@pytest.mark.parametrize("shape", sanitized.SHAPES, ids=str)
def test_every_element_of_every_result_is_written(backend, dtype, shape):
    for result in sanitized.calls("cuda", backend, [dtype], [shape]):
        assert not any(tensor.isnan().any() for tensor in result)


@pytest.mark.skipif("cuda" not in able(), reason="the cuda backend does not run here")
def test_every_kernel_of_cuda_writes_all_of_its_results():
    results = list(sanitized.short_calls("cuda", "cuda"))
    assert results
    assert not any(tensor.isnan().any() for result in results for tensor in result)


@every_call
@every_backend
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(2, 4, 5000, 77, 64), (2, 4, 2000, 300, 72)], ids=str)
def test_runs_are_alike_bit_by_bit(make, backend, shape, dtype):
    call = make(backend)
    tensors, arguments = inputs(shape, dtype, "cuda"), extras(shape, "cuda")
    first = call(tensors, arguments)
    assert all(same(first, call(tensors, arguments)) for _ in range(100))


@every_backend
def test_samples_may_lie_further_apart_than_32_bits_count(backend):
    memory = torch.zeros(2**31 + 2**20, dtype=torch.float16, device="cuda")
    near = inputs((2, 2, 70, 77, 40), torch.float16, "cuda")
    far = [memory.as_strided(t.shape, (2**31, 40, 2 * 40, 1)) for t in near]
    for place, tensor in zip(far, near, strict=True):
        # one after the other, for all three are views of the same memory
        place.copy_(tensor)
        operands = [place if tensor is one else one for one in near]
        assert same(
            memattn.cross_attention(*operands, backend=backend),
            memattn.cross_attention(*near, backend=backend),
        )


@pytest.mark.skipif("triton" not in able(), reason="Triton finds no GPU here")
@every_call
def test_triton_compiles_once_whatever_the_sizes(make):
    from triton import knobs

    call = make("triton")
    compiled = []

    def hook(**event):
        if not event["already_compiled"]:
            compiled.append(event["repr"].split("[")[0])

    knobs.runtime.jit_post_compile_hook = hook
    try:
        for shape in [(2, 8, 4096, 77, 24), (1, 1, 1, 65, 24), (3, 5, 17, 80, 24)]:
            call(inputs(shape, torch.float16, "cuda"), {})
    finally:
        knobs.runtime.jit_post_compile_hook = None
    # Sums are folded in float32, and gradients into their own dtype.
    times = Counter(compiled)
    assert times.pop("fold_kernel", 0) <= 2
    assert set(times.values()) == {1}, times


@every_backend
def test_a_call_runs_on_the_current_stream(backend):
    tensors = inputs((1, 2, 64, 77, 40), torch.float16, "cuda")
    expected = memattn.cross_attention(*tensors, backend=backend).output
    stream = torch.cuda.Stream()
    late = [torch.zeros_like(tensor) for tensor in tensors]
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # what a call on another stream would not wait for
        for tensor, value in zip(late, tensors, strict=True):
            tensor.copy_(value)
        actual = memattn.cross_attention(*late, backend=backend).output
    stream.synchronize()
    assert torch.equal(actual, expected)

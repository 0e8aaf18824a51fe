"""The ops of each compiled backend found here: opcheck, one graph, what the public op relies on."""

import functools

import pytest
import torch

import memattn
from memattn.ops.contract import cross_attention_request
from memattn.ops.torch_library import cross_attention as torch_library
from tests.kernels.cross_attention import dtype_of

TINY = torch.zeros(1, 1, 1, 8)
REASON = dict(memattn.explain(TINY, TINY, TINY))["cpu"]
needs_cpu_kernels = pytest.mark.skipif(REASON is not None, reason=f"no cpu kernels: {REASON}")

LAYOUTS = {
    "transposed": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
    "contiguous": torch.Tensor.contiguous,
    "sliced": lambda t: t.repeat_interleave(2, dim=3)[..., ::2],
    "expanded": lambda t: t[:, :1].expand_as(t),
    "odd offset": lambda t: torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape),
}


def inputs(dtype, device, layout="transposed"):
    tensors = [torch.randn(2, 3, length, 40, dtype=dtype, device=device) for length in (33, 7, 7)]
    return [LAYOUTS[layout](t) for t in tensors]


def extras(device):
    return {
        "key_bias": torch.randn(2, 7, device=device),
        "begin_scale": torch.tensor([0.5, 1.25], device=device),
        "token": torch.tensor([3, 0], device=device),
    }


def request(tensors, *, logsumexp, **changes):
    given = {"key_bias": None, "begin_scale": None, "token": None, "scale": None, **changes}
    asked = cross_attention_request(*tensors, **{"statistics": True, **given})
    return asked._replace(logsumexp=logsumexp)


def backward_of(backend):
    owner = torch_library.BACKWARD_OF.get(backend, backend)
    return getattr(torch.ops.memattn, f"cross_attention_{owner}_backward").default


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])
def test_op_passes_opcheck(compiled_backend, device, layout, training, everything):
    tensors = [
        t.detach().requires_grad_(training)
        for t in inputs(dtype_of(compiled_backend), device, layout)
    ]
    changes = extras(device) if everything else {"statistics": False}
    op = torch_library.register(compiled_backend).op
    torch.library.opcheck(op, tuple(request(tensors, logsumexp=training, **changes)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_extras", [False, True], ids=["bare", "extras"])
def test_backward_op_passes_opcheck(compiled_backend, device, layout, with_extras):
    tensors = inputs(dtype_of(compiled_backend), device, layout)
    changes = extras(device) if with_extras else {}
    asked = request(tensors, logsumexp=True, **changes)
    output, _, _, _, logsumexp = torch_library.register(compiled_backend).op(*asked)
    grad_output = LAYOUTS[layout](torch.randn_like(output).contiguous())
    op = backward_of(compiled_backend)
    torch.library.opcheck(
        op, (grad_output, *tensors, asked.key_bias, asked.begin_scale, output, logsumexp, 0.25)
    )


@pytest.mark.parametrize("empty", [False, True], ids=["samples", "no samples"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_results_have_the_shapes_dtypes_and_strides_of_their_fakes(
    compiled_backend, device, dtype, empty
):
    if compiled_backend == "cuda" and dtype == torch.float32:
        pytest.skip("cuda takes 16 bits")
    tensors = inputs(dtype, device)
    changes = extras(device)
    if empty:
        tensors = [t[:0] for t in tensors]
        changes = {name: tensor[:0] for name, tensor in changes.items()}
    asked = request(tensors, logsumexp=True, **changes)
    results = torch_library.register(compiled_backend).op(*asked)
    for real, fake in zip(results, torch_library._fake(*asked), strict=True):
        assert (real.shape, real.dtype) == (fake.shape, fake.dtype)
        assert real.numel() == 0 or real.stride() == fake.stride()


def test_backward_op_takes_a_logsumexp_of_any_strides(compiled_backend, device):
    tensors = inputs(dtype_of(compiled_backend), device)
    output, _, _, _, logsumexp = torch_library.register(compiled_backend).op(
        *request(tensors, logsumexp=True)
    )
    op = backward_of(compiled_backend)
    grad_output = torch.randn_like(output)
    expected = op(grad_output, *tensors, None, None, output, logsumexp, 0.25)
    every_second = logsumexp.repeat_interleave(2, dim=2)[..., ::2]
    turned = logsumexp.transpose(0, 2).contiguous().transpose(0, 2)
    for other in (every_second, turned):
        actual = op(grad_output, *tensors, None, None, output, other, 0.25)
        assert all(map(torch.equal, actual, expected))


# Of the cpu op's arguments, one wrong at a time: a compiled graph has gone past the Python checks.
WRONG = [
    ("query", torch.zeros(3, 33, 40)),
    ("key", torch.zeros(3, 7, 40)),
    ("key", torch.zeros(1, 3, 7, 40)),
    ("key", torch.zeros(2, 2, 7, 40)),
    ("key", torch.zeros(2, 3, 7, 8)),
    ("key", torch.zeros(2, 3, 0, 40)),
    ("key", torch.zeros(2, 3, 7, 40, dtype=torch.bfloat16)),
    ("value", torch.zeros(2, 3, 7)),
    ("value", torch.zeros(2, 3, 6, 40)),
    ("value", torch.zeros(2, 3, 7, 40, dtype=torch.float16)),
    ("key_bias", torch.zeros(2, 6)),
    ("key_bias", torch.zeros(1, 7)),
    ("begin_scale", torch.zeros(1)),
    ("begin_scale", torch.zeros(2, 1)),
]
WRONG_FORWARD = [("token", torch.zeros(1, dtype=torch.int64)), ("token", torch.tensor([[0], [0]]))]
WRONG_BACKWARD = [
    ("grad_output", torch.zeros(2, 3, 32, 40)),
    ("grad_output", torch.zeros(2, 3, 33, 8)),
    ("grad_output", torch.zeros(2, 3, 33, 40, dtype=torch.bfloat16)),
    ("logsumexp", torch.zeros(2, 3, 32)),
    ("logsumexp", torch.zeros(2, 3, 33, 1)),
    ("logsumexp", torch.zeros(2, 3, 33, dtype=torch.float64)),
]


def case_id(part):
    return part if isinstance(part, str) else f"{list(part.shape)} {part.dtype}"


@needs_cpu_kernels
@pytest.mark.parametrize(("name", "wrong"), WRONG + WRONG_FORWARD, ids=case_id)
def test_the_cpu_op_refuses_what_no_check_has_seen(name, wrong):
    asked = request(inputs(torch.float32, "cpu"), logsumexp=False, **extras("cpu"))
    op = torch_library.register("cpu").op
    op(*asked)
    with pytest.raises(RuntimeError, match=rf"\b{name}"):
        op(*asked._replace(**{name: wrong}))


@needs_cpu_kernels
@pytest.mark.parametrize(("name", "wrong"), WRONG + WRONG_BACKWARD, ids=case_id)
def test_the_cpu_backward_op_refuses_what_no_check_has_seen(name, wrong):
    given = extras("cpu")
    asked = request(inputs(torch.float32, "cpu"), logsumexp=True, **given)
    output, _, _, _, logsumexp = torch_library.register("cpu").op(*asked)
    arguments = {
        "grad_output": torch.zeros_like(output),
        **dict(list(asked._asdict().items())[:5]),  # query to begin_scale
        "output": output,
        "logsumexp": logsumexp,
    }
    op = torch.ops.memattn.cross_attention_cpu_backward.default
    op(*arguments.values(), 0.25)
    with pytest.raises(RuntimeError, match=rf"\b{name}"):
        op(*{**arguments, name: wrong}.values(), 0.25)


@needs_cpu_kernels
@pytest.mark.parametrize("dim", [0, 12])
def test_the_cpu_ops_refuse_a_head_dimension_that_vectors_do_not_divide(dim):
    tensors = [torch.zeros(2, 3, length, dim) for length in (33, 7, 7)]
    forward = torch_library.register("cpu").op
    with pytest.raises(RuntimeError, match="dimension"):
        forward(*tensors, None, None, None, 1.0, True, True)
    backward = torch.ops.memattn.cross_attention_cpu_backward.default
    given = (tensors[0], *tensors, None, None, tensors[0], torch.zeros(2, 3, 33))
    with pytest.raises(RuntimeError, match="dimension"):
        backward(*given, 1.0)


@needs_cpu_kernels
@pytest.mark.parametrize("dtype", [torch.float64, torch.int32], ids=str)
def test_the_cpu_op_refuses_a_dtype_that_it_does_not_take(dtype):
    tensors = [torch.zeros(2, 3, length, 40, dtype=dtype) for length in (33, 7, 7)]
    op = torch_library.register("cpu").op
    with pytest.raises(RuntimeError, match="dtype"):
        op(*tensors, None, None, None, 1.0, True, False)


@needs_cpu_kernels
@pytest.mark.parametrize("token", [-1, 7, 2**40])
def test_the_cpu_op_refuses_a_token_that_no_check_has_seen(token):
    """A compiled graph skips the check of the values: the op must not read other memory."""
    asked = request(inputs(torch.float32, "cpu"), logsumexp=False, token=torch.tensor([0, 0]))
    op = torch_library.register("cpu").op
    with pytest.raises(RuntimeError, match=f"token: got {token}, expected 0 to 6"):
        op(*asked._replace(token=torch.tensor([0, token])))


@pytest.mark.parametrize(
    "compiler",
    ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)],
)
def test_a_backend_compiles_to_one_graph_with_its_gradient(compiled_backend, device, compiler):
    torch._dynamo.reset()
    attention = functools.partial(memattn.cross_attention, backend=compiled_backend)

    def loss(query, key, value, key_bias, begin_scale, token):
        full = attention(query, key, value, key_bias=key_bias, begin_scale=begin_scale, token=token)
        plain = attention(query, key, value, statistics=False)
        flat = full.output.transpose(1, 2).flatten(2) + plain.output.transpose(1, 2).flatten(2)
        return flat.square().sum(), full.token_mass, full.token_entropy, full.token_map

    graph = torch.compile(loss, fullgraph=True, backend=compiler)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            tensors, arguments = inputs(dtype_of(compiled_backend), device), extras(device).values()
            results = []
            for function in (loss, graph):
                leaves = [t.detach().requires_grad_() for t in tensors]
                total, *statistics = function(*leaves, *arguments)
                results.append([*torch.autograd.grad(total, leaves), *statistics])
            for one, two in zip(*results, strict=True):
                torch.testing.assert_close(one, two)


def test_second_derivatives_and_tangents_are_refused(compiled_backend, device):
    leaves = [t.detach().requires_grad_() for t in inputs(dtype_of(compiled_backend), device)]
    output = memattn.cross_attention(*leaves, backend=compiled_backend).output
    (first,) = torch.autograd.grad(output.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='no second derivative here; use backend="reference"'):
        torch.autograd.grad(first.sum(), leaves)
    tensors = [t.detach() for t in leaves]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(tensors[0], torch.ones_like(tensors[0]))
        reasons = dict(memattn.explain(dual, *tensors[1:]))
        assert reasons[compiled_backend].startswith("it has no forward-mode derivative")
        assert reasons["reference"] is None

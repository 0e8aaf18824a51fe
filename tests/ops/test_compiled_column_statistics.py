"""The op of each compiled backend found here: opcheck, one graph, what the public op relies on."""

import functools

import pytest
import torch

import memattn
from memattn.errors import UnsupportedBackendError
from memattn.ops.contract import column_statistics_request
from memattn.ops.torch_library import column_statistics as torch_library
from tests.compilers import needs_cpu_library
from tests.kernels.layouts import LAYOUTS

OPERATION = "column_statistics"


def inputs(dtype, device, layout=torch.Tensor.contiguous):
    tensors = (torch.randn(2, 3, length, 16, dtype=dtype, device=device) for length in (33, 7))
    return [layout(t) for t in tensors]


def extras(device):
    return {
        "logsumexp": torch.full((2, 3, 33), 3.0, device=device),
        "key_bias": torch.randn(2, 7, device=device),
        "token": torch.tensor([3, 0], device=device),
    }


def request(tensors, **changes):
    given = {"logsumexp": None, "key_bias": None, "token": None, "scale": None, **changes}
    return column_statistics_request(*tensors, **given)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])
def test_op_passes_opcheck(compiled_backend, device, layout, training, everything):
    tensors = inputs(torch.float32, device, layout)
    tensors = [t.detach().requires_grad_(training) for t in tensors]
    changes = extras(device) if everything else {}
    op = torch_library.register(compiled_backend).op
    torch.library.opcheck(op, tuple(request(tensors, **changes)))


@pytest.mark.parametrize("empty", [False, True], ids=["samples", "no samples"])
@pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_results_have_the_shapes_dtypes_and_strides_of_their_fakes(
    compiled_backend, device, dtype, everything, empty
):
    tensors, changes = inputs(dtype, device), extras(device) if everything else {}
    if empty:
        tensors = [t[:0] for t in tensors]
        changes = {name: tensor[:0] for name, tensor in changes.items()}
    asked = request(tensors, **changes)
    results = torch_library.register(compiled_backend).op(*asked)
    for real, fake in zip(results, torch_library._fake(*asked), strict=True):
        assert (real.shape, real.dtype) == (fake.shape, fake.dtype)
        assert real.numel() == 0 or real.stride() == fake.stride()


@pytest.mark.parametrize("compiler", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_backend_compiles_to_one_graph(compiled_backend, device, compiler):
    torch._dynamo.reset()
    statistics = functools.partial(memattn.column_statistics, backend=compiled_backend)

    def both(query, key_columns, logsumexp, key_bias, token):
        alone = statistics(query, key_columns)
        return *statistics(query, key_columns, logsumexp, key_bias=key_bias, token=token), *alone[
            :2
        ]

    graph = torch.compile(both, fullgraph=True, backend=compiler)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            arguments = (*inputs(torch.float32, device), *extras(device).values())
            for one, two in zip(graph(*arguments), both(*arguments), strict=True):
                torch.testing.assert_close(one, two)


def test_results_are_not_differentiable(compiled_backend, device):
    leaves = [t.requires_grad_() for t in inputs(torch.float32, device)]
    result = memattn.column_statistics(*leaves, **extras(device), backend=compiled_backend)
    assert not any(field.requires_grad for field in result)
    reference = memattn.column_statistics(*leaves, **extras(device), backend="reference")
    assert all(field.requires_grad for field in reference)


@pytest.mark.parametrize("name", ["logsumexp", "key_bias"])
def test_an_argument_that_needs_a_gradient_is_refused(compiled_backend, device, name):
    tensors, arguments = inputs(torch.float32, device), extras(device)
    arguments[name].requires_grad_()
    sentence = f'it has no gradient for {name}; use backend="reference"'
    with pytest.raises(UnsupportedBackendError, match=sentence):
        memattn.column_statistics(*tensors, **arguments, backend=compiled_backend)
    with pytest.raises(RuntimeError, match=sentence):
        torch_library.register(compiled_backend).op(*request(tensors, **arguments))
    auto = memattn.column_statistics(*tensors, **arguments)
    assert torch.autograd.grad(auto.token_mass[..., 0].sum(), arguments[name])[0].count_nonzero()
    with torch.no_grad():
        memattn.column_statistics(*tensors, **arguments, backend=compiled_backend)


def test_forward_mode_is_refused(compiled_backend, device):
    query, key = inputs(torch.float32, device)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(query, torch.ones_like(query))
        sentence = 'it has no forward-mode derivative; use backend="reference"'
        with pytest.raises(UnsupportedBackendError, match=sentence):
            memattn.column_statistics(dual, key, backend=compiled_backend)
        auto = memattn.column_statistics(dual, key)
        assert torch.autograd.forward_ad.unpack_dual(auto.token_mass).tangent is not None


# Of the cpu op's arguments, one wrong at a time: a compiled graph has gone past the Python checks.
WRONG = [
    ("query", torch.zeros(3, 33, 16)),
    ("key_columns", torch.zeros(3, 7, 16)),
    ("key_columns", torch.zeros(1, 3, 7, 16)),
    ("key_columns", torch.zeros(2, 3, 7, 8)),
    ("key_columns", torch.zeros(2, 3, 0, 16)),
    ("key_columns", torch.zeros(2, 3, 7, 16, dtype=torch.bfloat16)),
    ("logsumexp", torch.zeros(2, 3, 32)),
    ("logsumexp", torch.zeros(2, 3, 33, 1)),
    ("logsumexp", torch.zeros(1, 3, 33)),
    ("key_bias", torch.zeros(2, 6)),
    ("key_bias", torch.zeros(1, 7)),
    ("token", torch.zeros(1, dtype=torch.int64)),
    ("token", torch.tensor([0, 7])),
    ("token", torch.tensor([-1, 0])),
]


@needs_cpu_library
@pytest.mark.parametrize(
    ("name", "wrong"),
    WRONG,
    ids=lambda part: part if isinstance(part, str) else f"{list(part.shape)} {part.dtype}",
)
def test_the_cpu_op_refuses_what_no_check_has_seen(name, wrong):
    tensors = inputs(torch.float32, "cpu")
    memattn.column_statistics(*tensors, backend="cpu")  # loads the library
    asked = request(tensors, **extras("cpu"))
    op = torch_library.register("cpu").op
    op(*asked)
    with pytest.raises(RuntimeError, match=rf"\b{name}"):
        op(*asked._replace(**{name: wrong}))


@needs_cpu_library
@pytest.mark.parametrize(
    ("dim", "dtype", "word"),
    [(0, torch.float32, "dimension"), (12, torch.float32, "dimension"), (16, torch.int32, "dtype")],
)
def test_the_cpu_op_refuses_what_its_vectors_do_not_take(dim, dtype, word):
    tensors = [torch.zeros(2, 3, length, dim, dtype=dtype) for length in (33, 7)]
    op = torch_library.register("cpu").op
    with pytest.raises(RuntimeError, match=word):
        op(*tensors, None, None, None, 1.0)

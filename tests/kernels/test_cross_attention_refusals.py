"""What a backend cannot run it says in one sentence; `auto` goes on to the reference."""

import pytest
import torch

import memattn
from memattn.errors import UnsupportedBackendError
from tests.compilers import needs_cpu_library
from tests.kernels.cross_attention import dtype_of, inputs

DTYPE_SENTENCE = "it takes torch.float32, torch.bfloat16 and torch.float16, got torch.float64"
DIM_SENTENCE = "it takes head dimensions that are multiples of 8 up to 256, got {}"


def test_reference_can_always_run():
    tensors = inputs((1, 1, 1, 1, 3), torch.float64)
    assert dict(memattn.explain(*tensors))["reference"] is None


@needs_cpu_library
@pytest.mark.parametrize(
    ("dim", "dtype", "sentence"),
    [
        (8, torch.float64, DTYPE_SENTENCE),
        (12, torch.float32, DIM_SENTENCE.format(12)),
        (4, torch.float16, DIM_SENTENCE.format(4)),
        (264, torch.bfloat16, DIM_SENTENCE.format(264)),
    ],
)
def test_cpu_refuses_and_the_reference_runs(dim, dtype, sentence):
    tensors = inputs((2, 2, 5, 7, dim), dtype)
    assert dict(memattn.explain(*tensors))["cpu"] == sentence
    with pytest.raises(UnsupportedBackendError) as caught:
        memattn.cross_attention(*tensors, backend="cpu")
    assert str(caught.value) == f"backend 'cpu' cannot run this call: {sentence}"
    assert_runs_as(tensors, "reference")


@needs_cpu_library
@pytest.mark.parametrize("dim", [8, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_auto_takes_the_cpu_kernels_where_they_can_run(dim, dtype):
    assert_runs_as(inputs((2, 2, 5, 7, dim), dtype), "cpu")


@pytest.mark.parametrize("name", ["key_bias", "begin_scale"])
def test_a_bias_that_needs_a_gradient_is_refused(compiled_backend, device, name):
    tensors = inputs((2, 2, 5, 7, 8), dtype_of(compiled_backend), device)
    shape = (2, 7) if name == "key_bias" else (2,)
    arguments = {name: torch.ones(shape, device=device, requires_grad=True)}
    sentence = f'it has no gradient for {name}; use backend="reference"'
    with pytest.raises(UnsupportedBackendError, match=sentence):
        memattn.cross_attention(*tensors, **arguments, backend=compiled_backend)
    auto = memattn.cross_attention(*tensors, **arguments)
    assert torch.autograd.grad(auto.token_mass[..., 0].sum(), arguments[name])[0].count_nonzero()
    with torch.no_grad():
        memattn.cross_attention(*tensors, **arguments, backend=compiled_backend)


def assert_runs_as(tensors, backend):
    auto = memattn.cross_attention(*tensors)
    named = memattn.cross_attention(*tensors, backend=backend)
    for one, two in zip(auto[:3], named[:3], strict=True):
        assert torch.equal(one, two)

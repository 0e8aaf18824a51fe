"""Tests of any head dimension on `cuda`: what the tests' own conftest adds, on the reference."""

import pytest
import torch

import memattn
from memattn.errors import UnsupportedBackendError
from memattn.kernels.cuda.limits import DIMS
from tests.gpus import too_few_on_cuda
from tests.kernels.conftest import padded
from tests.kernels.cross_attention import dtype_of, extras, inputs

SHAPE = (2, 2, 9, 7, 24)


def refusing(sentence, seen):
    """The reference, which refuses as `cuda` would."""

    def attention(query, key, value, **arguments):
        seen.append(query.shape[3])
        if query.shape[3] not in DIMS:
            raise UnsupportedBackendError(f"backend 'cuda' cannot run this call: {sentence}")
        return memattn.cross_attention(query, key, value, backend="reference", **arguments)

    return attention


@pytest.mark.parametrize("scale", [None, 0.3])
def test_a_refused_dimension_is_padded_and_no_number_changes(scale):
    seen = []
    attention = padded(refusing("it takes head dimensions of 40", seen))
    tensors, arguments = inputs(SHAPE), {**extras(SHAPE), "scale": scale}
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    result = attention(*leaves, **arguments)
    expected = memattn.cross_attention(*tensors, **arguments, backend="reference")
    assert seen == [24, 40]
    for one, two in zip(result, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one.detach(), two)
    assert all(
        t.shape == (2, 2, 9, 24) for t in torch.autograd.grad(result.output.sum(), leaves[:1])
    )


@pytest.mark.parametrize(
    ("dim", "sentence"), [(24, "it takes up to 320 keys"), (256, "it takes head dimensions of 40")]
)
def test_what_no_padding_helps_is_refused_as_before(dim, sentence):
    attention = padded(refusing(sentence, []))
    with pytest.raises(UnsupportedBackendError, match=sentence):
        attention(*inputs((2, 2, 9, 7, dim)))


def test_a_test_about_no_dtype_takes_one_that_cuda_has():
    assert dtype_of("cuda") == torch.float16
    assert dtype_of("triton") == dtype_of("reference") == torch.float32


def test_too_few_tests_on_cuda_are_told():
    passed = ["a.py::test[cuda-cuda]", "a.py::test[cuda-cuda-77]", "a.py::test[triton-cuda]"]
    assert too_few_on_cuda(passed, 2) is None
    assert too_few_on_cuda(passed, 3) == (
        "got 2 tests that passed on the cuda backend, expected 3 or more."
    )

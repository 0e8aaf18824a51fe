"""Any strides and any place in memory give the same numbers, and nothing else is read."""

import pytest
import torch

import memattn
from memattn.testing import explicit_cross_attention
from tests.kernels.cross_attention import DTYPES, dtype_of, extras, inputs
from tests.kernels.layouts import LAYOUTS


def assert_same_results(backend, tensors, others, arguments):
    one = memattn.cross_attention(*tensors, **arguments, backend=backend)
    two = memattn.cross_attention(*others, **arguments, backend=backend)
    for actual, expected in zip(two, one, strict=True):
        if expected is not None:
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dim", [8, 40])
def test_a_layout_changes_no_number(backend, device, layout, dtype, dim):
    shape = (2, 3, 65, 77, dim)
    tensors = [t.contiguous() for t in inputs(shape, dtype, device)]
    arguments = extras(shape, device)
    assert_same_results(backend, tensors, [layout(t) for t in tensors], arguments)
    for place in range(3):
        mixed = [layout(t) if index == place else t for index, t in enumerate(tensors)]
        assert_same_results(backend, tensors, mixed, arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_an_expanded_axis_is_read_as_its_copy(backend, device, dtype, axis):
    shape = (2, 3, 65, 77, 40)
    tensors = [t.narrow(axis, 0, 1).expand_as(t) for t in inputs(shape, dtype, device)]
    assert all(t.stride(axis) == 0 for t in tensors)
    copies = [t.contiguous() for t in tensors]
    assert_same_results(backend, copies, tensors, extras(shape, device))


@pytest.mark.parametrize("layout", ["every second", "expanded", "column"])
def test_a_token_may_have_any_strides(backend, device, layout):
    token = {
        "every second": torch.arange(4)[::2],
        "expanded": torch.tensor([2]).expand(2),
        "column": torch.arange(6).view(2, 3)[:, 1],
    }[layout].to(device)
    tensors = inputs((2, 3, 65, 77, 16), dtype_of(backend), device)
    one = memattn.cross_attention(*tensors, token=token.contiguous(), backend=backend)
    two = memattn.cross_attention(*tensors, token=token, backend=backend)
    assert torch.equal(one.token_map, two.token_map)


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("layout", ["transposed", "contiguous", "sliced"])
def test_output_is_laid_out_for_the_projection(backend, device, layout, statistics):
    query, key, value = inputs((2, 3, 65, 77, 80), dtype_of(backend), device)
    if layout == "contiguous":
        query, key, value = (t.contiguous() for t in (query, key, value))
    if layout == "sliced":
        query, key, value = (t[..., ::2] for t in (query, key, value))
    output = memattn.cross_attention(
        query, key, value, statistics=statistics, backend=backend
    ).output
    flat = output.transpose(1, 2).reshape(2, 65, -1)
    assert flat.data_ptr() == output.data_ptr()
    exact = explicit_cross_attention(query.double(), key.double(), value.double()).output
    atol = max(1e-5, 2 * torch.finfo(output.dtype).eps)
    torch.testing.assert_close(output.double(), exact, atol=atol, rtol=0)

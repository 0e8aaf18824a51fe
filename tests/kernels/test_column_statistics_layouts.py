"""Any strides and any place in memory, threads and batches: the same numbers, bit for bit."""

import pytest
import torch

import memattn
from tests.kernels.bits import THREADS, assert_same_bits, with_threads
from tests.kernels.column_statistics import call_of
from tests.kernels.cross_attention import DTYPES
from tests.kernels.layouts import LAYOUTS

OPERATION = "column_statistics"

SHAPE = (2, 3, 65, 77, 40)
ALL = ("logsumexp", "key_bias", "token")
TWO = pytest.mark.parametrize("names", [("key_bias", "token"), ALL], ids=["alone", "logsumexp"])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_no_number(backend, device, layout, dtype):
    (query, key), arguments = call_of(SHAPE, dtype, device)
    expected = memattn.column_statistics(
        query.contiguous(), key.contiguous(), **arguments, backend=backend
    )
    for tensors in ((layout(query), layout(key)), (layout(query), key), (query, layout(key))):
        result = memattn.column_statistics(*tensors, **arguments, backend=backend)
        for actual, field in zip(result, expected, strict=True):
            torch.testing.assert_close(actual, field)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_an_expanded_axis_is_read_as_its_copy(backend, device, axis):
    tensors, arguments = call_of(SHAPE, device=device)
    tensors = [t.narrow(axis, 0, 1).expand_as(t) for t in tensors]
    result = memattn.column_statistics(*tensors, **arguments, backend=backend)
    copies = [t.contiguous() for t in tensors]
    expected = memattn.column_statistics(*copies, **arguments, backend=backend)
    for actual, field in zip(result, expected, strict=True):
        torch.testing.assert_close(actual, field)


@pytest.mark.parametrize("name", ["logsumexp", "key_bias", "token"])
def test_arguments_may_have_any_strides(backend, device, name):
    tensors, arguments = call_of(SHAPE, device=device)
    expected = memattn.column_statistics(*tensors, **arguments, backend=backend)
    tensor = arguments[name]
    turned = tensor.permute(*reversed(range(tensor.ndim))).contiguous()
    others = [
        tensor.repeat_interleave(2, dim=tensor.ndim - 1)[..., ::2],
        turned.permute(*reversed(range(tensor.ndim))),
        # As flash attention pads it: rows longer than the queries.
        torch.cat([tensor, tensor], dim=tensor.ndim - 1).narrow(-1, 0, tensor.shape[-1]),
    ]
    for other in others:
        assert torch.equal(other, tensor)
        result = memattn.column_statistics(*tensors, **{**arguments, name: other}, backend=backend)
        assert_same_bits(result, expected)


@TWO
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(6, 3, 64, 77, 32), (4, 2, 1100, 80, 40), (4, 1, 33, 512, 256)])
def test_a_sample_does_not_depend_on_its_batch(backend, device, shape, dtype, names):
    tensors, arguments = call_of(shape, dtype, device, names)
    whole = memattn.column_statistics(*tensors, **arguments, backend=backend)
    again = memattn.column_statistics(*tensors, **arguments, backend=backend)
    assert_same_bits(whole, again)
    for rows in (slice(0, 1), slice(1, 2), slice(2, shape[0])):
        some = {name: tensor[rows] for name, tensor in arguments.items()}
        subset = memattn.column_statistics(*(t[rows] for t in tensors), **some, backend=backend)
        assert_same_bits(subset, [None if t is None else t[rows] for t in whole])


@TWO
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 1100, 77, 40), (3, 1, 1, 333, 64)])
def test_the_number_of_threads_changes_no_bit(backend, device, shape, dtype, names):
    tensors, arguments = call_of(shape, dtype, device, names)

    def run():
        return memattn.column_statistics(*tensors, **arguments, backend=backend)

    first, *others = [with_threads(count, run) for count in THREADS]
    for other in others:
        assert_same_bits(first, other)


@TWO
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_memory_from_before_changes_no_bit(backend, device, dtype, names):
    tensors, arguments = call_of(SHAPE, dtype, device, names)
    expected = memattn.column_statistics(*tensors, **arguments, backend=backend)
    spoiled = [
        torch.full_like(t, torch.nan) for t in call_of((2, 3, 90, 129, 64), dtype, device)[0]
    ]
    memattn.column_statistics(*spoiled, backend=backend)
    torch.use_deterministic_algorithms(True)  # what torch allocates then starts as nan
    try:
        result = memattn.column_statistics(*tensors, **arguments, backend=backend)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_bits(result, expected)


def test_autocast_does_not_round_float32(backend, device):
    tensors, arguments = call_of(SHAPE, device=device)
    plain = memattn.column_statistics(*tensors, **arguments, backend=backend)
    with torch.autocast(device, dtype=torch.bfloat16):
        inside = memattn.column_statistics(*tensors, **arguments, backend=backend)
    assert_same_bits(plain, inside)

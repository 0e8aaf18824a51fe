"""The same bits from run to run, for any batch, number of threads and calls before or beside."""

import functools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import memattn
from tests.kernels.bits import THREADS, assert_same_bits, with_threads
from tests.kernels.cross_attention import DTYPES, SHAPES, dtype_of, extras, gradients, inputs


def slopes(tensors, grad_output, arguments, backend):
    attention = functools.partial(memattn.cross_attention, backend=backend)
    return gradients(attention, tensors, grad_output, arguments)


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_extras", [False, True], ids=["bare", "extras"])
@pytest.mark.parametrize(
    "shape",
    [
        (6, 3, 64, 77, 32),
        (5, 2, 1100, 77, 40),
        (4, 5, 63, 333, 24),
        (4, 1, 64, 120, 256),
        (4, 2, 33, 154, 64),
        (4, 2, 33, 231, 64),
        (4, 2, 33, 300, 8),
        (4, 1, 33, 512, 256),
    ],
)
def test_a_sample_does_not_depend_on_its_batch(
    backend, device, shape, dtype, statistics, with_extras
):
    tensors = inputs(shape, dtype, device)
    arguments = {"statistics": statistics}
    if with_extras:
        wanted = extras(shape, device)
        arguments |= wanted if statistics else {"key_bias": wanted["key_bias"]}
    whole = memattn.cross_attention(*tensors, **arguments, backend=backend)
    again = memattn.cross_attention(*tensors, **arguments, backend=backend)
    assert_same_bits(whole, again)
    for rows in (slice(0, 1), slice(1, 2), slice(2, shape[0])):
        subset = memattn.cross_attention(
            *(t[rows] for t in tensors),
            **{k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in arguments.items()},
            backend=backend,
        )
        assert_same_bits(subset, [None if t is None else t[rows] for t in whole])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 1100, 77, 40), (1, 1, 2500, 5, 8), (3, 1, 1, 333, 64)])
def test_the_number_of_threads_changes_no_bit(backend, device, shape, dtype):
    tensors, arguments = inputs(shape, dtype, device), extras(shape, device)

    def run():
        return memattn.cross_attention(*tensors, **arguments, backend=backend)

    first, *others = [with_threads(count, run) for count in THREADS]
    for other in others:
        assert_same_bits(first, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(3, 2, 1100, 77, 40), (3, 1, 130, 333, 24), (3, 3, 1, 5, 256)])
def test_gradients_depend_on_neither_threads_nor_batch(compiled_backend, device, shape, dtype):
    tensors, arguments = inputs(shape, dtype, device), extras(shape, device)
    grad_output = torch.randn_like(tensors[0])

    def run(rows=slice(None)):
        some = {k: v[rows] for k, v in arguments.items()}
        return slopes([t[rows] for t in tensors], grad_output[rows], some, compiled_backend)

    first, *others = [with_threads(count, run) for count in THREADS]
    for other in others:
        assert_same_bits(first, other)
    for rows in (slice(0, 1), slice(1, 3)):
        assert_same_bits(run(rows), [t[rows] for t in first])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_call_leaves_nothing_behind_for_the_next(backend, device, dtype):
    """Scratch memory that an earlier, larger call filled with nan must not be seen."""
    shape = (2, 3, 33, 77, 40)
    tensors, arguments = inputs(shape, dtype, device), extras(shape, device)
    grad_output = torch.randn_like(tensors[0])
    before = memattn.cross_attention(*tensors, **arguments, backend=backend)
    before_slopes = slopes(tensors, grad_output, arguments, backend)
    spoiled = [torch.full_like(t, torch.nan) for t in inputs((2, 3, 65, 129, 64), dtype, device)]
    memattn.cross_attention(*spoiled, backend=backend)
    slopes(spoiled, spoiled[0], {}, backend)
    assert_same_bits(memattn.cross_attention(*tensors, **arguments, backend=backend), before)
    assert_same_bits(slopes(tensors, grad_output, arguments, backend), before_slopes)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 33, 77, 40), (1, 2, 65, 81, 8), (1, 1, 1, 1, 24)])
def test_every_element_of_a_result_is_written(backend, device, shape, dtype):
    tensors, arguments = inputs(shape, dtype, device), extras(shape, device)
    grad_output = torch.randn_like(tensors[0])
    expected = memattn.cross_attention(*tensors, **arguments, backend=backend)
    before_slopes = slopes(tensors, grad_output, arguments, backend)
    torch.use_deterministic_algorithms(True)  # what torch allocates then starts as nan
    try:
        assert torch.empty(3).isnan().all()
        result = memattn.cross_attention(*tensors, **arguments, backend=backend)
        other_slopes = slopes(tensors, grad_output, arguments, backend)
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same_bits(result, expected)
    assert_same_bits(other_slopes, before_slopes)


def test_calls_from_several_threads_do_not_disturb_each_other(backend, device):
    shapes = ((2, 3, 64, 77, 32), (1, 2, 1100, 81, 8))
    jobs = [inputs(shape, dtype_of(backend), device) for shape in shapes] * 8

    def run(tensors):
        grad_output = torch.ones_like(tensors[0])
        result = memattn.cross_attention(*tensors, backend=backend)
        return (*result, *slopes(tensors, grad_output, {}, backend))

    alone = [run(job) for job in jobs]
    with ThreadPoolExecutor(3) as pool:
        for one, other in zip(alone, pool.map(run, jobs), strict=True):
            assert_same_bits(one, other)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_gradient_mode_changes_no_number(backend, device, mode):
    shape = SHAPES["sd_64px"]
    tensors, arguments = inputs(shape, dtype_of(backend), device), extras(shape, device)
    leaves = [t.detach().requires_grad_() for t in tensors]
    training = memattn.cross_attention(*leaves, **arguments, backend=backend)
    with mode():
        inference = memattn.cross_attention(*leaves, **arguments, backend=backend)
    for one, two in zip(training[:4], inference[:4], strict=True):
        torch.testing.assert_close(one, two)
    assert inference.logsumexp is None


def test_autocast_does_not_round_float32(backend, device):
    tensors = inputs((1, 2, 64, 77, 32), device=device)
    plain = memattn.cross_attention(*tensors, backend=backend)
    with torch.autocast(device, dtype=torch.bfloat16):
        inside = memattn.cross_attention(*tensors, backend=backend)
    assert_same_bits(plain, inside)

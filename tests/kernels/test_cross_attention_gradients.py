"""Gradients of the output, on every backend, against float64; and what the reference adds."""

import functools
import itertools

import pytest
import torch

import memattn
from memattn.testing import explicit_cross_attention
from tests.kernels.cross_attention import (
    DTYPES,
    assert_gradients_within_budget,
    dtype_of,
    extras,
    gradients,
    inputs,
)

QUERIES = (1, 5, 63, 64, 257)
KEYS = (2, 8, 77, 80, 81, 129, 333)
DIMS = (8, 24, 40, 64, 80, 160, 256)
ARGUMENTS = [(), ("key_bias",), ("begin_scale",), ("key_bias", "begin_scale")]


def grid():
    """All pairs of a number of keys and a dimension; the other choices take turns along both."""
    for (i, keys), (j, dim) in itertools.product(enumerate(KEYS), enumerate(DIMS)):
        yield (
            QUERIES[(i + 2 * j) % len(QUERIES)],
            keys,
            dim,
            DTYPES[(i + j) % len(DTYPES)],
            ARGUMENTS[(i + 3 * j) % len(ARGUMENTS)],
        )


def name(case):
    queries, keys, dim, dtype, names = case
    return f"Lq{queries}-Lk{keys}-D{dim}-{dtype}-{'+'.join(names) or 'bare'}"


@pytest.mark.parametrize("case", list(grid()), ids=name)
def test_gradients_are_within_the_error_budget(backend, device, case):
    queries, keys, dim, dtype, names = case
    shape = (2, 6 if queries <= 5 else 2, queries, keys, dim)
    arguments = {k: v for k, v in extras(shape, device).items() if k in names}
    attention = functools.partial(memattn.cross_attention, backend=backend)
    assert_gradients_within_budget(attention, inputs(shape, dtype, device), arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
def test_gradients_of_many_query_blocks_are_within_the_error_budget(
    backend, device, dtype, statistics
):
    shape = (1, 2, 1100, 77, 40)
    arguments = {"key_bias": extras(shape, device)["key_bias"]}
    attention = functools.partial(memattn.cross_attention, statistics=statistics, backend=backend)
    assert_gradients_within_budget(attention, inputs(shape, dtype, device), arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [1e5, -1e5])
def test_gradients_under_a_large_bias_on_every_key_are_within_the_error_budget(
    backend, device, dtype, offset
):
    """A logsumexp is rounded to 1/128 here. Logits are whole 128ths, and lose nothing."""
    query, key, value = inputs((2, 2, 65, 77, 64), dtype, device)
    tensors = ((4 * query).round() / 4, (4 * key).round() / 4, value)
    arguments = {"key_bias": torch.full((2, 77), offset, device=device)}
    attention = functools.partial(memattn.cross_attention, backend=backend)
    assert_gradients_within_budget(attention, tensors, arguments)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
def test_gradients_of_a_sample_without_tokens_are_zero(backend, device, statistics, dtype):
    query, key, value = (t.requires_grad_() for t in inputs((2, 1, 3, 4, 8), dtype, device))
    bias = torch.zeros(2, 4, device=device)
    bias[1] = -torch.inf
    result = memattn.cross_attention(
        query, key, value, key_bias=bias, statistics=statistics, backend=backend
    )
    result.output.square().sum().backward()
    for tensor in (query, key, value):
        assert tensor.grad[1].count_nonzero() == 0
        assert tensor.grad[0].count_nonzero() > 0
        assert tensor.grad.isfinite().all()


def test_a_removed_key_gets_no_gradient(backend, device):
    query, key, value = (t.requires_grad_() for t in inputs((2, 2, 9, 77, 16), device=device))
    bias = torch.zeros(2, 77, device=device)
    bias[:, 50:] = -torch.inf
    output = memattn.cross_attention(query, key, value, key_bias=bias, backend=backend).output
    output.square().sum().backward()
    for tensor in (key, value):
        assert tensor.grad[:, :, 50:].count_nonzero() == 0
        assert tensor.grad[:, :, :50].count_nonzero() == 2 * 2 * 50 * 16


def test_one_key_passes_its_gradient_to_the_value_alone(backend, device):
    tensors = inputs((2, 2, 63, 1, 8), device=device)
    grad_output = torch.randn_like(tensors[0])

    run = functools.partial(memattn.cross_attention, backend=backend)
    to_query, to_key, to_value = gradients(run, tensors, grad_output, {})
    torch.testing.assert_close(to_value, grad_output.sum(dim=2, keepdim=True))
    assert to_query.abs().max() < 1e-5
    assert to_key.abs().max() < 1e-5


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spread", ["expanded", "heads first", "every second"])
def test_any_strides_of_the_incoming_gradient_give_the_same(backend, device, dtype, spread):
    tensors = inputs((2, 3, 33, 77, 16), dtype, device)
    incoming = torch.randn_like(tensors[0]).contiguous()
    if spread == "expanded":
        incoming = incoming[:, :, :1, :1].expand_as(tensors[0])
    if spread == "every second":
        incoming = incoming.repeat_interleave(2, dim=3)[..., ::2]

    run = functools.partial(memattn.cross_attention, backend=backend)
    copied = torch.empty_like(tensors[0]).copy_(incoming)
    expected = gradients(run, tensors, copied, {})
    for one, two in zip(gradients(run, tensors, incoming, {}), expected, strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("wanted", ["query", "key", "value"])
def test_one_gradient_alone_is_the_same_as_among_three(backend, device, wanted):
    made = inputs((2, 2, 9, 77, 16), dtype_of(backend), device)
    tensors = dict(zip(("query", "key", "value"), made, strict=True))
    leaf = tensors[wanted].requires_grad_()
    (alone,) = torch.autograd.grad(
        memattn.cross_attention(**tensors, backend=backend).output.square().sum(), leaf
    )
    for tensor in tensors.values():
        tensor.requires_grad_()
    (among,) = torch.autograd.grad(
        memattn.cross_attention(**tensors, backend=backend).output.square().sum(), leaf
    )
    torch.testing.assert_close(alone, among)


def test_logits_of_a_thousand_have_finite_gradients(backend, device):
    query, key, value = inputs((1, 2, 9, 77, 8), device=device)
    leaves = [(t * size).requires_grad_() for t, size in ((query, 30), (key, 30), (value, 1))]
    output = memattn.cross_attention(*leaves, backend=backend).output
    exact_leaves = [t.detach().double().requires_grad_() for t in leaves]
    exact = explicit_cross_attention(*exact_leaves).output
    for one, two in zip(
        torch.autograd.grad(output.square().sum(), leaves),
        torch.autograd.grad(exact.square().sum(), exact_leaves),
        strict=True,
    ):
        torch.testing.assert_close(one.double(), two, atol=1e-2, rtol=1e-3)


def test_compiled_statistics_carry_no_gradient(compiled_backend, device):
    shape = (2, 2, 9, 77, 16)
    tensors = inputs(shape, dtype_of(compiled_backend), device)
    leaves = [t.requires_grad_() for t in tensors]
    result = memattn.cross_attention(
        *leaves, token=extras(shape, device)["token"], backend=compiled_backend
    )
    assert result.output.requires_grad
    assert not any(field.requires_grad for field in result[1:])


# What only the reference has


def test_reference_differentiates_to_second_order():
    query, key, value = (t.double().requires_grad_() for t in inputs((1, 2, 3, 4, 8)))
    bias = torch.tensor([[0.3, -torch.inf, 0.1, -0.2]], dtype=torch.float64)
    factor = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    token = torch.tensor([2])

    def results(query, key, value, factor):
        result = memattn.cross_attention(
            query, key, value, key_bias=bias, begin_scale=factor, token=token, backend="reference"
        )
        return result[:4]

    assert torch.autograd.gradcheck(results, (query, key, value, factor), check_forward_ad=True)
    small = tuple(t[:, :1, :2].detach().requires_grad_() for t in (query, key, value))
    bias = bias[:, :2]
    token = torch.tensor([0])
    assert torch.autograd.gradgradcheck(results, (*small, factor))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reference_statistics_of_a_sample_without_tokens_have_zero_gradients(dtype):
    query, key, value = (t.requires_grad_() for t in inputs((2, 1, 3, 4, 8), dtype))
    bias = torch.zeros(2, 4)
    bias[1] = -torch.inf
    result = memattn.cross_attention(query, key, value, key_bias=bias, backend="reference")
    (result.token_mass[..., 0].sum() + result.token_entropy.sum()).backward()
    for tensor in (query, key):
        assert tensor.grad[1].count_nonzero() == 0
        assert tensor.grad[0].count_nonzero() > 0
        assert tensor.grad.isfinite().all()


def test_auto_takes_a_backend_that_differentiates_the_bias():
    tensors = inputs((2, 2, 5, 7, 8))
    slopes = []
    for statistics in (True, False):
        bias = torch.linspace(4, 7, 14).reshape(2, 7).requires_grad_()
        result = memattn.cross_attention(*tensors, key_bias=bias, statistics=statistics)
        weights = torch.linspace(-1, 1, result.output.numel()).reshape(result.output.shape)
        slopes += torch.autograd.grad((result.output * weights).sum(), bias)
    torch.testing.assert_close(*slopes)

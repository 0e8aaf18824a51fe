"""Drawn shapes, dtypes, arguments and strides against float64, within a bound that is proved."""

import math

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import memattn
from memattn.testing import explicit_cross_attention
from tests.kernels.cross_attention import DTYPES, double, dtype_of, inputs

SHAPE = st.tuples(
    st.integers(1, 3),  # batch
    st.integers(1, 3),  # heads
    st.integers(1, 140),  # queries
    st.integers(1, 180),  # keys
    st.integers(1, 12).map(lambda eighths: 8 * eighths),
)


@st.composite
def calls(draw):
    """Tensors of any strides and the arguments beside them."""
    shape = draw(SHAPE)
    torch.manual_seed(draw(st.integers(0, 2**16)))
    spread = draw(st.sampled_from([0.1, 1.0, 5.0]))
    tensors = inputs(shape, draw(st.sampled_from(DTYPES)))
    tensors = [t * size for t, size in zip(tensors, (spread, 1.0, 1.0), strict=True)]
    tensors = [
        t.permute(order).contiguous().permute(inverse(order))
        for t in tensors
        for order in [draw(st.permutations(range(4)))]
    ]
    arguments = {}
    batch, _, _, keys, _ = shape
    if draw(st.booleans()):
        bias = torch.randn(batch, keys)
        removed = torch.rand(batch, keys) < draw(st.sampled_from([0.0, 0.3, 0.9]))
        removed[:, draw(st.integers(0, keys - 1))] = False
        arguments["key_bias"] = bias.masked_fill(removed, -torch.inf)
    if draw(st.booleans()):
        arguments["begin_scale"] = 4 * torch.rand(batch) - 1
    if draw(st.booleans()):
        arguments["token"] = torch.randint(keys, (batch,))
    return tensors, arguments


def inverse(order):
    return sorted(range(len(order)), key=order.__getitem__)


@settings(max_examples=30)
@given(calls())
def test_any_call_is_within_its_rounding_of_float64(backend, device, call):
    tensors, arguments = call
    assume(backend != "cuda" or tensors[0].dtype != torch.float32)
    query, key, value = (t.to(device) for t in tensors)
    arguments = {k: v.to(device) for k, v in arguments.items()}
    result = memattn.cross_attention(query, key, value, **arguments, backend=backend)
    exact = explicit_cross_attention(
        query.double(), key.double(), value.double(), **double(arguments)
    )
    dim, keys = query.shape[3], key.shape[2]
    # Each logit is a sum of D products, each probability a sum of Lk exponentials: a relative
    # error of one rounding of float32 for every term, at most, in whatever order they are added.
    products = dim**-0.5 * query.double().abs() @ key.double().abs().mT
    largest = products.max().item() * max(1.0, *arguments.get("begin_scale", torch.ones(1)).abs())
    bias = arguments.get("key_bias", torch.zeros(1))
    largest += bias[bias.isfinite()].abs().max().item()
    single = torch.finfo(torch.float32).eps
    error = 2 * single * ((dim + 4) * largest + keys + 8)
    rounding = torch.finfo(query.dtype).eps
    bound = (error + 2 * rounding) * value.double().abs().max().item()
    torch.testing.assert_close(result.output.double(), exact.output, atol=bound, rtol=0)
    total = query.shape[2] * single
    torch.testing.assert_close(
        result.token_mass.double(), exact.token_mass, atol=1e-30, rtol=error + total
    )
    # d(-p ln p) / -p ln p <= error (1 + 1 / -ln p), and p <= 1 - error or both are tiny.
    torch.testing.assert_close(
        result.token_entropy.double(),
        exact.token_entropy,
        atol=2 * error * query.shape[2],
        rtol=error + total,
    )
    if "token" in arguments:
        torch.testing.assert_close(
            result.token_map.double(), exact.token_map, atol=1e-30, rtol=error
        )


@settings(max_examples=15)
@given(calls())
def test_any_gradient_is_close_to_float64(backend, device, call):
    tensors, arguments = call
    assume(backend != "cuda" or tensors[0].dtype != torch.float32)
    arguments = {k: v.to(device) for k, v in arguments.items()}
    grad_output = torch.randn(tensors[0].shape).to(device, tensors[0].dtype)
    results = []
    for dtype in (tensors[0].dtype, torch.float64):
        leaves = [t.to(device, dtype).requires_grad_() for t in tensors]
        if dtype == torch.float64:
            output = explicit_cross_attention(*leaves, **double(arguments)).output
        else:
            output = memattn.cross_attention(*leaves, **arguments, backend=backend).output
        results.append(torch.autograd.grad(output, leaves, grad_output.to(dtype)))
    for actual, exact in zip(*results, strict=True):
        bound = 8 * torch.finfo(actual.dtype).eps * max(1.0, exact.abs().max().item())
        bound += 1e-4 * max(1.0, exact.abs().max().item())
        torch.testing.assert_close(actual.double(), exact, atol=bound, rtol=0)


@settings(max_examples=15)
@given(shape=SHAPE, spread=st.sampled_from([0.1, 1.0, 30.0]), seed=st.integers(0, 2**16))
def test_mass_and_entropy_obey_their_bounds(backend, device, shape, spread, seed):
    torch.manual_seed(seed)
    query, key, value = inputs(shape, dtype_of(backend), device)
    batch, heads, queries, keys, _ = shape
    result = memattn.cross_attention(query * spread, key, value, backend=backend)
    total = torch.full((batch, heads), float(queries))
    torch.testing.assert_close(result.token_mass.sum(-1).cpu(), total, rtol=1e-5, atol=0)
    entropy = result.token_entropy.sum(-1) / queries
    assert result.token_entropy.min() >= -1e-6
    assert entropy.max() <= math.log(keys) + 1e-5

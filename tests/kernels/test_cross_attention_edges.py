"""What is at the end of every range: removed keys, huge and tiny numbers, nan, nothing at all."""

import itertools

import pytest
import torch

import memattn
from memattn.testing import explicit_cross_attention
from tests.kernels.cross_attention import (
    DTYPES,
    SHAPES,
    assert_result_within_budget,
    double,
    dtype_of,
    inputs,
)


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_without_tokens_gives_zeros(backend, device, dtype, statistics):
    tensors = inputs((2, 2, 5, 7, 8), dtype, device)
    bias = torch.zeros(2, 7, device=device)
    bias[1] = -torch.inf
    token = torch.tensor([0, 0], device=device) if statistics else None
    result = memattn.cross_attention(
        *tensors, key_bias=bias, token=token, statistics=statistics, backend=backend
    )
    for tensor in result:
        if tensor is not None:
            assert tensor[1].count_nonzero() == 0
            assert tensor[0].count_nonzero() > 0


@pytest.mark.parametrize("keys", [1, 77, 150, 333])
def test_a_sample_without_tokens_has_a_logsumexp_of_zero(compiled_backend, device, keys):
    shape = (2, 2, 5, keys, 8)
    tensors = [t.requires_grad_() for t in inputs(shape, dtype_of(compiled_backend), device)]
    bias = torch.zeros(2, keys, device=device)
    bias[0] = -torch.inf
    lse = memattn.cross_attention(*tensors, key_bias=bias, backend=compiled_backend).logsumexp
    assert lse[0].count_nonzero() == 0
    assert lse[1].count_nonzero() > 0


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kept", [[0], [76], [15, 16], [0, 76], list(range(48))])
def test_only_the_tokens_that_are_kept_count(backend, device, dtype, kept, statistics):
    query, key, value = inputs(SHAPES["sd_64px"], dtype, device)
    bias = torch.full((2, 77), -torch.inf, device=device)
    bias[:, kept] = 0.0
    result = memattn.cross_attention(
        query, key, value, key_bias=bias, statistics=statistics, backend=backend
    )
    if statistics:
        removed = bias[0] == -torch.inf
        for field in result[1:3]:
            assert field[..., removed].count_nonzero() == 0
        mass, entropy = (field[..., ~removed] for field in result[1:3])
        result = result._replace(token_mass=mass, token_entropy=entropy)
    assert_result_within_budget(result, (query, key[:, :, kept], value[:, :, kept]), {})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
def test_the_lowest_finite_bias_removes_a_key_only_beside_others(
    backend, device, dtype, statistics
):
    query, key, value = inputs((2, 2, 5, 7, 8), dtype, device)
    value[0] = 1.0
    bias = torch.full((2, 7), torch.finfo(torch.float32).min, device=device)
    bias[1, :3] = 0.0
    result = memattn.cross_attention(
        query, key, value, key_bias=bias, statistics=statistics, backend=backend
    )
    # Where all have it, probabilities still add up to one.
    torch.testing.assert_close(result.output[0], torch.ones_like(query[0]))
    short = memattn.cross_attention(
        query[1:], key[1:, :, :3], value[1:, :, :3], statistics=statistics, backend=backend
    )
    torch.testing.assert_close(result.output[1:], short.output)
    if statistics:
        assert (result.token_mass[0] > 0).all()
        assert result.token_mass[1, :, 3:].count_nonzero() == 0
        assert result.token_entropy.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1e3, -1e3])
def test_huge_logits_stay_finite(backend, device, size, dtype):
    query, key, value = inputs((1, 2, 9, 77, 8), dtype, device)
    tensors = (query * size, key * 50, value)
    result = memattn.cross_attention(*tensors, backend=backend)
    assert all(tensor.isfinite().all() for tensor in result[:3])
    torch.testing.assert_close(result.token_mass.sum(-1).cpu(), torch.full((1, 2), 9.0))
    exact = explicit_cross_attention(*(t.double() for t in tensors))
    # Logits of 1e5 have an absolute error of 1e-2, and so have the probabilities.
    torch.testing.assert_close(result.output.double(), exact.output, atol=0.05, rtol=0)


@pytest.mark.parametrize("factor", [0.0, -2.0, 30.0])
def test_any_finite_begin_scale_is_within_the_error_budget(backend, device, factor):
    shape = SHAPES["sd_64px"]
    tensors = inputs(shape, dtype_of(backend), device)
    arguments = {"begin_scale": torch.tensor([factor, 1.0], device=device)}
    result = memattn.cross_attention(*tensors, **arguments, backend=backend)
    assert_result_within_budget(result, tensors, arguments)


def test_subnormal_float16_values_keep_their_digits(backend, device):
    """2e-5 is below the least normal float16: values so small occur, and must not become 0."""
    query, key, value = inputs(SHAPES["sd_64px"], torch.float16, device)
    tensors = (query, key, value * 2e-5)
    result = memattn.cross_attention(*tensors, backend=backend)
    assert result.output.count_nonzero() > 0.8 * result.output.numel()
    assert_result_within_budget(result, tensors, {})


def test_subnormal_float32_is_still_there_after_a_call(backend, device):
    query, key, value = inputs(SHAPES["sd_64px"], device=device)
    output = memattn.cross_attention(query, key, value * 1e-40, backend=backend).output
    exact = explicit_cross_attention(query.double(), key.double(), value.double() * 1e-40).output
    torch.testing.assert_close(output.double(), exact, atol=1e-43, rtol=0)
    assert torch.full((4099,), 2e-39).mul(0.5).count_nonzero() == 4099


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_in_one_query_row_stays_in_that_row(backend, device, dtype):
    query, key, value = inputs(SHAPES["sd_64px"], dtype, device)
    token = torch.tensor([5, 76], device=device)
    clean = memattn.cross_attention(query, key, value, token=token, backend=backend)
    query[1, 2, 37, 3] = torch.nan
    result = memattn.cross_attention(query, key, value, token=token, backend=backend)
    for spoiled, whole, place in (
        (result.output, clean.output, (1, 2, 37)),
        (result.token_map, clean.token_map, (1, 2, 37)),
        (result.token_mass, clean.token_mass, (1, 2)),
        (result.token_entropy, clean.token_entropy, (1, 2)),
    ):
        assert spoiled[place].isnan().all()
        spoiled[place] = whole[place]
        torch.testing.assert_close(spoiled, whole, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("biased", [False, True], ids=["bare", "key_bias"])
@pytest.mark.parametrize("keys", [77, 130])
def test_nan_in_one_query_row_is_in_that_rows_logsumexp(
    compiled_backend, device, dtype, biased, keys
):
    query, key, value = inputs((2, 3, 64, keys, 32), dtype, device)
    bias = torch.zeros(2, keys, device=device) if biased else None
    results = []
    for entry in (0.0, torch.nan):
        query[1, 2, 37, 3] = entry
        leaves = [t.clone().requires_grad_() for t in (query, key, value)]
        result = memattn.cross_attention(*leaves, key_bias=bias, backend=compiled_backend)
        results.append(result.logsumexp)
    clean, spoiled = results
    assert spoiled[1, 2, 37].isnan()
    spoiled[1, 2, 37] = clean[1, 2, 37]
    assert torch.equal(spoiled, clean)


@pytest.mark.parametrize("biased", [False, True], ids=["bare", "key_bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("keys", [1, 16, 77, 80, 150])
def test_logits_that_are_all_minus_infinity_by_value(backend, device, keys, dtype, biased):
    """Without a bias no key is removed, and 0 / 0 is nan; with one the row counts as empty."""
    query, key, value = inputs((1, 2, 5, keys, 16), dtype, device)
    query[0, 1, 2, 3] = torch.inf
    key[..., 3] = -1 - key[..., 3].abs()
    token = torch.tensor([keys - 1], device=device)
    bias = torch.zeros(1, keys, device=device) if biased else None
    result = memattn.cross_attention(query, key, value, key_bias=bias, token=token, backend=backend)
    clean = [0, 1, 3, 4]
    alone = memattn.cross_attention(
        query[:, :, clean], key, value, key_bias=bias, token=token, backend=backend
    )
    torch.testing.assert_close(result.output[:, :, clean], alone.output)
    assert result.token_mass[:, 0].isfinite().all()
    row = (result.output[0, 1, 2], result.token_map[0, 1, 2])
    for field in row:
        assert (field == 0).all() if biased else field.isnan().all()
    for name in ("token_mass", "token_entropy"):
        head = getattr(result, name)[0, 1]
        if biased:
            torch.testing.assert_close(head, getattr(alone, name)[0, 1])
        else:
            assert head.isnan().all()


@pytest.mark.parametrize("biased", [False, True], ids=["bare", "key_bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("keys", [1, 77, 80, 150])
@pytest.mark.parametrize("factor", [-1e38, 1e38, -torch.inf, torch.inf])
def test_any_begin_scale_gives_what_the_definition_gives(
    backend, device, factor, keys, dtype, biased
):
    # All logits are positive: whatever multiplies the first, its sign is known.
    shapes = [(2, 2, length, 16) for length in (5, keys, keys)]
    query, key, value = (torch.rand(shape, device=device, dtype=dtype) for shape in shapes)
    arguments = {"begin_scale": torch.tensor([factor, 1.0], device=device)}
    arguments["token"] = torch.tensor([0, 0], device=device)
    if biased:
        arguments["key_bias"] = torch.zeros(2, keys, device=device)
    result = memattn.cross_attention(query, key, value, **arguments, backend=backend)
    exact = explicit_cross_attention(
        *(t.double() for t in (query, key, value)), **double(arguments)
    )
    names = ["output", "token_mass", "token_map"]
    if abs(factor) < torch.inf:
        names.append("token_entropy")
    if biased and keys == 1 and factor == -torch.inf:
        for name in names:  # its only key is removed
            assert getattr(result, name)[0].count_nonzero() == 0
        return
    for name in names:
        field = getattr(result, name)
        atol = max(1e-5, torch.finfo(field.dtype).eps)
        torch.testing.assert_close(
            field.double(), getattr(exact, name), atol=atol, rtol=0, equal_nan=True
        )


@pytest.mark.parametrize(
    ("place", "bad"),
    [
        *itertools.product(
            ["query", "key", "value", "key_bias"], [torch.nan, torch.inf, -torch.inf]
        ),
        ("begin_scale", torch.nan),
    ],
)
@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("keys", [77, 150])
def test_what_is_not_finite_spoils_no_more_and_no_less_than_by_definition(
    backend, device, keys, dtype, statistics, place, bad
):
    arguments = dict(
        zip(("query", "key", "value"), inputs((2, 2, 37, keys, 16), dtype, device), strict=True)
    )
    arguments["key_bias"] = torch.randn(2, keys, device=device)
    arguments["begin_scale"] = torch.ones(2, device=device)
    spoiled = arguments[place]
    spoiled[(1, 1, 5, 3)[: spoiled.ndim]] = bad
    result = memattn.cross_attention(**arguments, statistics=statistics, backend=backend)
    exact = explicit_cross_attention(**double(arguments))
    for name in ("output", *(["token_mass"] if statistics else [])):
        torch.testing.assert_close(
            getattr(result, name).double(),
            getattr(exact, name),
            atol=0.02,
            rtol=0.02,
            equal_nan=True,
        )


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
def test_an_empty_batch_gives_empty_results(backend, device, statistics):
    shape = (0, 3, 64, 77, 32)
    tensors = inputs(shape, dtype_of(backend), device)
    token = torch.zeros(0, dtype=torch.int64, device=device) if statistics else None
    result = memattn.cross_attention(*tensors, token=token, statistics=statistics, backend=backend)
    assert result.output.shape == (0, 3, 64, 32)
    if statistics:
        assert result.token_mass.shape == result.token_entropy.shape == (0, 3, 77)
        assert result.token_map.shape == (0, 3, 64)


def test_an_empty_batch_has_empty_gradients(compiled_backend, device):
    tensors = inputs((0, 3, 64, 77, 32), dtype_of(compiled_backend), device)
    leaves = [t.requires_grad_() for t in tensors]
    output = memattn.cross_attention(*leaves, backend=compiled_backend).output
    for gradient, leaf in zip(torch.autograd.grad(output.sum(), leaves), leaves, strict=True):
        assert gradient.shape == leaf.shape

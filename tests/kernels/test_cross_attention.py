"""Every backend found here against the definition: hand-computed tables, and laws."""

import math

import pytest
import torch

import memattn
from memattn.testing import explicit_cross_attention
from tests.kernels.cross_attention import SHAPES, dtype_of, inputs

# Table


def test_uniform_logits_give_uniform_attention(backend, device):
    query = torch.zeros(1, 1, 6, 8, dtype=dtype_of(backend), device=device)
    key = value = torch.ones(1, 1, 4, 8, dtype=dtype_of(backend), device=device)
    result = memattn.cross_attention(query, key, value, backend=backend)
    torch.testing.assert_close(result.output, torch.ones_like(query))
    torch.testing.assert_close(result.token_mass.cpu(), torch.full((1, 1, 4), 1.5))
    entropy = result.token_entropy.sum().item() / 6
    assert entropy == pytest.approx(math.log(4), rel=1e-6)


def test_one_dominant_logit_gives_zero_entropy(backend, device):
    query = torch.full((1, 1, 3, 8), 10.0, dtype=dtype_of(backend), device=device)
    key = torch.zeros(1, 1, 5, 8, dtype=dtype_of(backend), device=device)
    key[:, :, 2] = 10.0
    result = memattn.cross_attention(query, key, key, backend=backend)
    assert result.token_mass.flatten().tolist() == [0.0, 0.0, 3.0, 0.0, 0.0]
    assert result.token_entropy.abs().max() < 1e-30


def test_two_keys_match_the_hand_computed_numbers(backend, device):
    # logits ln 3 and 0: p = 3/4 and 1/4.
    query = torch.zeros(1, 1, 1, 8, device=device)
    query[..., 0] = math.log(3)
    key = torch.zeros(1, 1, 2, 8, device=device)
    key[0, 0, 0, 0] = 1.0
    value = torch.arange(16.0, device=device).reshape(1, 1, 2, 8)
    token = torch.tensor([1], device=device)
    result = memattn.cross_attention(query, key, value, scale=1.0, token=token, backend=backend)
    torch.testing.assert_close(result.token_mass.flatten().cpu(), torch.tensor([0.75, 0.25]))
    expected = torch.tensor([0.75 * math.log(4 / 3), 0.25 * math.log(4)])
    torch.testing.assert_close(result.token_entropy.flatten().cpu(), expected)
    assert result.token_map.item() == pytest.approx(0.25)
    torch.testing.assert_close(result.output.flatten().cpu(), torch.arange(8.0) + 2.0)


def test_begin_scale_multiplies_the_logit_before_the_bias_is_added(backend, device):
    query = torch.zeros(1, 1, 1, 8, dtype=dtype_of(backend), device=device)
    query[..., 0] = 1.0
    key = torch.zeros(1, 1, 2, 8, dtype=dtype_of(backend), device=device)
    key[0, 0, 0, 0] = 2.0
    bias = torch.tensor([[1.0, 0.0]], device=device)
    factor = torch.tensor([3.0], device=device)
    result = memattn.cross_attention(
        query, key, key, scale=0.5, key_bias=bias, begin_scale=factor, backend=backend
    )
    odds = math.exp(3.0 * (0.5 * 2.0) + 1.0)
    assert result.token_mass[0, 0, 0].item() == pytest.approx(odds / (1 + odds), rel=1e-6)


# Law


def test_permuting_tokens_permutes_the_statistics(backend, device):
    query, key, value = inputs(SHAPES["sd_64px"], dtype_of(backend), device)
    order = torch.randperm(77, device=device)
    result = memattn.cross_attention(query, key, value, backend=backend)
    other = memattn.cross_attention(query, key[:, :, order], value[:, :, order], backend=backend)
    torch.testing.assert_close(other.output, result.output)
    torch.testing.assert_close(other.token_mass, result.token_mass[..., order])
    torch.testing.assert_close(other.token_entropy, result.token_entropy[..., order])


def test_statistics_of_two_query_sets_add_up(backend, device):
    query, key, value = inputs(SHAPES["long_prompt"], dtype_of(backend), device)
    whole = memattn.cross_attention(query, key, value, backend=backend)
    parts = [
        memattn.cross_attention(part, key, value, backend=backend)
        for part in (query[:, :, :50], query[:, :, 50:])
    ]
    torch.testing.assert_close(sum(p.token_mass for p in parts), whole.token_mass)
    torch.testing.assert_close(sum(p.token_entropy for p in parts), whole.token_entropy)


def test_the_map_is_the_tokens_column(backend, device):
    shape = SHAPES["sd_64px"]
    query, key, value = inputs(shape, dtype_of(backend), device)
    token = torch.tensor([76, 3], device=device)
    result = memattn.cross_attention(query, key, value, token=token, backend=backend)
    alone = memattn.cross_attention(
        query, key, value, token=token, statistics=False, backend=backend
    )
    chosen = result.token_mass.gather(2, token[:, None, None].expand(-1, 3, 1)).squeeze(2)
    torch.testing.assert_close(result.token_map.sum(-1), chosen)
    assert torch.equal(alone.token_map, result.token_map)
    assert alone.token_mass is None


# The reference computes in float64


def test_reference_statistics_of_float64_are_float64():
    tensors = tuple(t.double() for t in inputs(SHAPES["sd_64px"]))
    result = memattn.cross_attention(*tensors, backend="reference")
    exact = explicit_cross_attention(*tensors)
    for name in ("output", "token_mass", "token_entropy"):
        actual, expected = getattr(result, name), getattr(exact, name)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)

"""Every backend found here against the definition: hand-computed tables, and laws."""

import math

import pytest
import torch

import memattn
from tests.kernels.column_statistics import call_of, explicit, inputs

OPERATION = "column_statistics"

SHAPE = (2, 3, 65, 77, 32)

# Table


def two_columns(device):
    """Logits ln 3 and 0."""
    query, key = torch.zeros(1, 1, 1, 8, device=device), torch.zeros(1, 1, 2, 8, device=device)
    query[..., 0] = math.log(3)
    key[0, 0, 0, 0] = 1.0
    return query, key


def test_two_of_three_keys_match_the_hand_computed_numbers(backend, device):
    # The third key has the logit ln 4: the denominator is 3 + 1 + 4, p = 3/8 and 1/8.
    logsumexp = torch.full((1, 1, 1), math.log(8), device=device)
    token = torch.tensor([0], device=device)
    result = memattn.column_statistics(
        *two_columns(device), logsumexp, scale=1.0, token=token, backend=backend
    )
    torch.testing.assert_close(result.token_mass.flatten().cpu(), torch.tensor([0.375, 0.125]))
    expected = torch.tensor([0.375 * math.log(8 / 3), 0.125 * math.log(8)])
    torch.testing.assert_close(result.token_entropy.flatten().cpu(), expected)
    assert result.token_map.item() == pytest.approx(0.375)


def test_two_columns_alone_match_the_hand_computed_numbers(backend, device):
    result = memattn.column_statistics(*two_columns(device), scale=1.0, backend=backend)
    torch.testing.assert_close(result.token_mass.flatten().cpu(), torch.tensor([0.75, 0.25]))
    expected = torch.tensor([0.75 * math.log(4 / 3), 0.25 * math.log(4)])
    torch.testing.assert_close(result.token_entropy.flatten().cpu(), expected)
    assert result.token_map is None


def test_the_bias_is_added_to_the_scaled_logit(backend, device):
    query, key = two_columns(device)
    bias = torch.tensor([[0.0, math.log(2)]], device=device)
    logsumexp = torch.full((1, 1, 1), math.log(8), device=device)
    result = memattn.column_statistics(
        query, key * 2, logsumexp, key_bias=bias, scale=0.5, backend=backend
    )
    torch.testing.assert_close(result.token_mass.flatten().cpu(), torch.tensor([0.375, 0.25]))


# Law


@pytest.mark.parametrize("columns", [slice(0, 7), slice(30, 117), slice(0, 117)])
def test_columns_are_those_of_attention_over_all_keys(backend, device, columns):
    query, key = inputs(SHAPE, device=device)
    whole = memattn.cross_attention(query, key, key, backend="reference")
    logsumexp = (query @ key.mT * 32**-0.5).logsumexp(3)
    result = memattn.column_statistics(query, key[:, :, columns], logsumexp, backend=backend)
    torch.testing.assert_close(result.token_mass, whole.token_mass[..., columns])
    torch.testing.assert_close(result.token_entropy, whole.token_entropy[..., columns])


@pytest.mark.parametrize("biased", [False, True], ids=["bare", "key_bias"])
def test_columns_alone_have_the_statistics_of_attention_to_them(backend, device, biased):
    names = ("token", "key_bias") if biased else ("token",)
    (query, key), arguments = call_of(SHAPE, device=device, names=names)
    result = memattn.column_statistics(query, key, **arguments, backend=backend)
    attention = memattn.cross_attention(query, key, key, **arguments, backend="reference")
    for name in ("token_mass", "token_entropy", "token_map"):
        torch.testing.assert_close(getattr(result, name), getattr(attention, name))


def test_the_map_is_the_tokens_column(backend, device):
    tensors, arguments = call_of(SHAPE, device=device)
    arguments["token"] = torch.tensor([75, 3], device=device)
    result = memattn.column_statistics(*tensors, **arguments, backend=backend)
    index = arguments["token"][:, None, None].expand(-1, 3, 1)
    chosen = result.token_mass.gather(2, index).squeeze(2)
    torch.testing.assert_close(result.token_map.sum(-1), chosen)


def test_statistics_of_two_query_sets_add_up(backend, device):
    (query, key), arguments = call_of((1, 2, 700, 77, 24), device=device, names=("logsumexp",))
    logsumexp = arguments["logsumexp"]
    whole = memattn.column_statistics(query, key, logsumexp, backend=backend)
    parts = [
        memattn.column_statistics(query[:, :, rows], key, logsumexp[..., rows], backend=backend)
        for rows in (slice(0, 250), slice(250, 700))
    ]
    torch.testing.assert_close(sum(part.token_mass for part in parts), whole.token_mass)
    torch.testing.assert_close(sum(part.token_entropy for part in parts), whole.token_entropy)


# The reference computes in float64, and differentiates to any order


@pytest.mark.parametrize("names", [(), ("logsumexp", "key_bias", "token")], ids=["alone", "all"])
def test_reference_statistics_of_float64_are_float64(names):
    tensors, arguments = call_of(SHAPE, torch.float64, names=names)
    result = memattn.column_statistics(*tensors, **arguments, backend="reference")
    exact = explicit(*tensors, **arguments)
    for actual, expected in zip(result, exact, strict=True):
        if expected is not None:
            torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("normalised", ["over all keys", "alone"])
def test_reference_has_first_and_second_derivatives(normalised):
    shape = (1, 1, 3, 4, 8)
    (query, key), arguments = call_of(shape, torch.float64)
    bias = arguments["key_bias"].double().masked_fill(torch.tensor([False] * 3 + [True]), -9.0)
    leaves = [query, key, bias]
    if normalised == "over all keys":
        leaves.append(arguments["logsumexp"].double())
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]

    def fields(query, key, bias, logsumexp=None):
        if logsumexp is not None:  # a row without keys has a gradient of zero, not nan
            empty = torch.tensor([False, True, False])
            logsumexp = logsumexp.masked_fill(empty, torch.inf)
        # A removed column too.
        bias = bias.masked_fill(torch.tensor([True, False, False, False]), -torch.inf)
        token = arguments["token"] + 1
        return tuple(
            memattn.column_statistics(
                query, key, logsumexp, key_bias=bias, token=token, backend="reference"
            )
        )

    assert torch.autograd.gradcheck(fields, leaves)
    assert torch.autograd.gradgradcheck(fields, leaves)

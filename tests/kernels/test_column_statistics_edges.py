"""What is at the end of every range: rows and columns without keys, nan, huge numbers, nothing."""

import pytest
import torch

import memattn
from tests.kernels.column_statistics import assert_result_within_budget, call_of
from tests.kernels.cross_attention import DTYPES

OPERATION = "column_statistics"

SHAPE = (2, 3, 65, 77, 32)


@pytest.mark.parametrize("columns", [1, 77, 80])
@pytest.mark.parametrize("infinity", [torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_without_keys_gives_zeros(backend, device, dtype, infinity, columns):
    (query, key), arguments = call_of((2, 3, 65, columns, 32), dtype, device)
    arguments["token"] *= 0
    removed = torch.zeros(65, dtype=torch.bool, device=device)
    removed[[0, 7, 64]] = True
    arguments["logsumexp"][1, 2, removed] = infinity
    query[1, 2, 7] = torch.nan  # what such a row holds is nobody's business
    query[1, 2, 64] = torch.inf
    result = memattn.column_statistics(query, key, **arguments, backend=backend)
    assert result.token_map[1, 2, removed].count_nonzero() == 0
    kept = (query[1:, 2:, ~removed], key[1:, 2:])
    short = {name: tensor[1:] for name, tensor in arguments.items()}
    short["logsumexp"] = short["logsumexp"][:, 2:, ~removed]
    alone = memattn.column_statistics(*kept, **short, backend=backend)
    for name in ("token_mass", "token_entropy"):
        torch.testing.assert_close(getattr(result, name)[1:, 2:], getattr(alone, name))
    arguments["logsumexp"].fill_(infinity)
    result = memattn.column_statistics(query, key, **arguments, backend=backend)
    assert all(field.count_nonzero() == 0 for field in result)


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("query", ("token",)),
        ("query", ("token", "logsumexp")),
        ("logsumexp", ("token", "logsumexp")),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_in_one_row_stays_in_that_row(backend, device, dtype, place, names):
    (query, key), arguments = call_of(SHAPE, dtype, device, names)
    clean = memattn.column_statistics(query, key, **arguments, backend=backend)
    spoiled = query if place == "query" else arguments["logsumexp"]
    spoiled[(1, 2, 37, 3)[: spoiled.ndim]] = torch.nan
    result = memattn.column_statistics(query, key, **arguments, backend=backend)
    places = ((1, 2), (1, 2), (1, 2, 37))
    for field, expected, place_ in zip(result, clean, places, strict=True):
        assert field[place_].isnan().all()
        field[place_] = expected[place_]
        assert torch.equal(field, expected)


@pytest.mark.parametrize("alone", [False, True], ids=["logsumexp", "alone"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_sample_without_columns_gives_zeros(backend, device, dtype, alone):
    tensors, arguments = call_of(SHAPE, dtype, device)
    if alone:
        del arguments["logsumexp"]
    arguments["key_bias"] = torch.zeros(2, 77, device=device)
    arguments["key_bias"][1] = -torch.inf
    result = memattn.column_statistics(*tensors, **arguments, backend=backend)
    for field in result:
        assert field[1].count_nonzero() == 0
        assert field[0].count_nonzero() > 0


@pytest.mark.parametrize("alone", [False, True], ids=["logsumexp", "alone"])
@pytest.mark.parametrize("kept", [[0], [76], [15, 16], list(range(48))])
def test_only_the_columns_that_are_kept_count(backend, device, kept, alone):
    (query, key), arguments = call_of(SHAPE, device=device, names=("logsumexp",))
    if alone:
        arguments = {}
    bias = torch.full((2, 77), -torch.inf, device=device)
    bias[:, kept] = 0.0
    result = memattn.column_statistics(query, key, **arguments, key_bias=bias, backend=backend)
    removed = bias[0] == -torch.inf
    for field in result[:2]:
        assert field[..., removed].count_nonzero() == 0
    mass, entropy = (field[..., ~removed] for field in result[:2])
    result = result._replace(token_mass=mass, token_entropy=entropy)
    assert_result_within_budget(result, (query, key[:, :, kept]), arguments)


@pytest.mark.parametrize("queries", [4, 20_000])  # in the second, sums of many blocks
def test_a_logsumexp_that_is_not_the_rows_gives_what_the_definition_gives(backend, device, queries):
    query, key = (torch.zeros(1, 1, length, 8, device=device) for length in (queries, 2))
    query[..., 0] = 1.0
    key[0, 0, 1, 0] = 300.0
    logsumexp = torch.full((1, 1, queries), -5.0, device=device)
    result = memattn.column_statistics(query, key, logsumexp, scale=1.0, backend=backend)
    mass = pytest.approx(queries * torch.tensor(5.0).exp().item())
    entropy = pytest.approx(-5 * queries * torch.tensor(5.0).exp().item())
    assert result.token_mass.flatten().tolist() == [mass, torch.inf]
    assert result.token_entropy.flatten().tolist() == [entropy, -torch.inf]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_huge_logits_stay_finite(backend, device, dtype):
    (query, key), arguments = call_of((1, 2, 9, 77, 8), dtype, device, ())
    result = memattn.column_statistics(query * 1e3, key * 50, **arguments, backend=backend)
    assert all(field.isfinite().all() for field in result[:2])
    torch.testing.assert_close(result.token_mass.sum(-1).cpu(), torch.full((1, 2), 9.0))


@pytest.mark.parametrize("names", [(), ("logsumexp", "key_bias", "token")], ids=["alone", "all"])
def test_an_empty_batch_gives_empty_results(backend, device, names):
    tensors, arguments = call_of(SHAPE, device=device, names=names)
    some = {name: tensor[:0] for name, tensor in arguments.items()}
    result = memattn.column_statistics(*(t[:0] for t in tensors), **some, backend=backend)
    assert result.token_mass.shape == result.token_entropy.shape == (0, 3, 77)
    assert (result.token_map is None) == (names == ())
    if result.token_map is not None:
        assert result.token_map.shape == (0, 3, 65)

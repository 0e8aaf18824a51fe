"""Every shape, dtype and argument a model may bring, within the error budget against float64."""

import itertools

import pytest
import torch

import memattn
from tests.kernels.column_statistics import assert_result_within_budget, call_of
from tests.kernels.cross_attention import DTYPES, double

OPERATION = "column_statistics"

QUERIES = (1, 5, 63, 64, 65, 257, 1025)
COLUMNS = (1, 2, 76, 77, 78, 79, 80, 128, 129, 333, 512)
DIMS = (8, 16, 24, 40, 64, 72, 128, 160, 256)
NAMES = ("logsumexp", "key_bias", "token")
ARGUMENTS = [
    names for count in range(len(NAMES) + 1) for names in itertools.combinations(NAMES, count)
]


def grid():
    """All pairs of a number of columns and a dimension; the other choices take turns."""
    for (i, columns), (j, dim) in itertools.product(enumerate(COLUMNS), enumerate(DIMS)):
        yield (
            QUERIES[(i + 3 * j) % len(QUERIES)],
            columns,
            dim,
            DTYPES[(i + j) % len(DTYPES)],
            ARGUMENTS[(i + 3 * j) % len(ARGUMENTS)],
        )


def name(case):
    queries, columns, dim, dtype, names = case
    return f"Lq{queries}-Lc{columns}-D{dim}-{dtype}-{'+'.join(names) or 'alone'}"


def test_the_grid_has_every_dtype_with_every_set_of_arguments():
    met = {case[3:] for case in grid()}
    assert met == set(itertools.product(DTYPES, ARGUMENTS))


@pytest.mark.parametrize("case", list(grid()), ids=name)
def test_result_is_within_the_error_budget(compiled_backend, device, case):
    run_case(compiled_backend, device, case)


@pytest.mark.parametrize("case", list(grid())[::5], ids=name)
def test_reference_is_within_the_error_budget(case):
    run_case("reference", "cpu", case)


def run_case(backend, device, case):
    queries, columns, dim, dtype, names = case
    # The budget compares two largest errors: that takes enough numbers for both.
    shape = (2, 8 if queries <= 5 else 1, queries, columns, dim)
    tensors, arguments = call_of(shape, dtype, device, names)
    result = memattn.column_statistics(*tensors, **arguments, backend=backend)
    assert_result_within_budget(result, tensors, arguments)
    assert (result.token_map is not None) == ("token" in names)


@pytest.mark.parametrize("names", [(), ("logsumexp",)], ids=["alone", "logsumexp"])
@pytest.mark.parametrize("seed", range(3))
def test_sums_over_many_queries_are_within_the_error_budget(backend, device, names, seed):
    torch.manual_seed(seed)
    tensors, arguments = call_of((1, 1, 20000, 8, 8), device=device, names=names)
    result = memattn.column_statistics(*tensors, **arguments, backend=backend)
    assert_result_within_budget(result, tensors, arguments)


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.0])
def test_any_scale_is_within_the_error_budget(backend, device, scale):
    (query, key), _ = call_of((2, 3, 65, 77, 32), device=device)
    logsumexp = (query.double() @ key.double().mT * scale).logsumexp(3).float() + 1.0
    arguments = {"logsumexp": logsumexp, "scale": scale}
    result = memattn.column_statistics(query, key, **arguments, backend=backend)
    same = (query * scale * 32**0.5, key)
    assert_result_within_budget(result, same, {"logsumexp": logsumexp})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_bias_and_logsumexp_may_have_another_dtype(backend, device, dtype):
    tensors, arguments = call_of((2, 3, 65, 77, 32), device=device, names=("logsumexp", "key_bias"))
    other = {name: tensor.to(dtype) for name, tensor in arguments.items()}
    result = memattn.column_statistics(*tensors, **other, backend=backend)
    same = {name: tensor.float() for name, tensor in double(other).items()}
    assert_result_within_budget(result, tensors, same)


def test_small_probabilities_keep_their_digits(backend, device):
    """A column whose logit is an exact number from 0 to 100 below the logsumexp."""
    query = torch.zeros(1, 1, 4099, 8, device=device)
    query[0, 0, :, 0] = -100.0 * torch.linspace(0, 1, 4099)
    key = torch.zeros(1, 1, 1, 8, device=device)
    key[..., 0] = 1.0
    result = memattn.column_statistics(
        query,
        key,
        torch.zeros(1, 1, 4099, device=device),
        scale=1.0,
        token=torch.tensor([0], device=device),
        backend=backend,
    )
    exact = query[0, 0, :, 0].double().cpu().exp()
    column = result.token_map[0, 0].double().cpu()
    eager = query[0, 0, :, 0].exp().double().cpu()
    error, eager_error = ((each - exact).abs() / exact for each in (column, eager))
    normal = exact > 1e-30
    assert error[normal].max() <= 2 * eager_error[normal].max() + torch.finfo(torch.float32).eps
    tail = column[~normal]
    assert tail.numel() > 1000
    assert ((tail >= 0) & (tail <= 1.001e-30)).all()
    assert result.token_mass.item() == pytest.approx(exact.sum().item(), rel=1e-6)
    entropy = torch.special.entr(exact).sum().item()
    assert result.token_entropy.item() == pytest.approx(entropy, rel=2e-6)

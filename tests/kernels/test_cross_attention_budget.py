"""Every shape, dtype and argument a model may bring, within the error budget against float64."""

import itertools

import pytest
import torch

import memattn
from memattn.testing import assert_within_error_budget, explicit_cross_attention
from tests.kernels.cross_attention import (
    DTYPES,
    SHAPES,
    assert_result_within_budget,
    double,
    dtype_of,
    extras,
    inputs,
)

# Around every multiple that a kernel may tile by, and what real models have.
QUERIES = (1, 2, 5, 63, 64, 65, 257, 1025)
KEYS = (1, 2, 8, 76, 77, 78, 79, 80, 81, 120, 127, 128, 129, 154, 231, 300, 333, 512, 1024)
DIMS = (8, 16, 24, 40, 48, 56, 64, 72, 80, 96, 112, 128, 160, 256)
ARGUMENTS = [
    *(
        (*names, "statistics")
        for count in range(4)
        for names in itertools.combinations(("key_bias", "begin_scale", "token"), count)
    ),
    (),
    ("key_bias",),
    ("begin_scale", "token"),
]


def grid():
    """All pairs of a number of keys and a dimension; the other choices take turns along both."""
    for (i, keys), (j, dim) in itertools.product(enumerate(KEYS), enumerate(DIMS)):
        yield (
            QUERIES[(i + 3 * j) % len(QUERIES)],
            keys,
            dim,
            DTYPES[(i + j) % len(DTYPES)],
            ARGUMENTS[(i + 2 * j) % len(ARGUMENTS)],
        )


def name(case):
    queries, keys, dim, dtype, names = case
    return f"Lq{queries}-Lk{keys}-D{dim}-{dtype}-{'+'.join(names) or 'plain'}"


def test_the_grid_has_every_pair_of_choices():
    axes = (QUERIES, KEYS, DIMS, DTYPES, ARGUMENTS)
    for one, two in itertools.combinations(range(len(axes)), 2):
        met = {(case[one], case[two]) for case in grid()}
        assert met == set(itertools.product(axes[one], axes[two]))


@pytest.mark.parametrize("case", list(grid()), ids=name)
def test_result_is_within_the_error_budget(compiled_backend, device, case):
    run_case(compiled_backend, device, case)


# A third has every number of keys, every dimension and every dtype.
@pytest.mark.parametrize("case", list(grid())[::3], ids=name)
def test_reference_is_within_the_error_budget(case):
    run_case("reference", "cpu", case)


def run_case(backend, device, case):
    queries, keys, dim, dtype, names = case
    # The budget compares two largest errors: that takes enough numbers for both.
    heads = 8 if queries <= 5 else 1
    shape = (2, heads, queries, keys, dim)
    tensors = inputs(shape, dtype, device)
    arguments = {k: v for k, v in extras(shape, device).items() if k in names}
    statistics = "statistics" in names
    result = memattn.cross_attention(*tensors, **arguments, statistics=statistics, backend=backend)
    assert_result_within_budget(result, tensors, arguments)
    present = [field is not None for field in result]
    assert present == [True, statistics, statistics, "token" in names, False]


@pytest.mark.parametrize("case", list(grid())[::11], ids=name)
def test_logsumexp_for_a_backward_is_within_the_error_budget(compiled_backend, device, case):
    queries, keys, dim, dtype, names = case
    shape = (2, 8 if queries <= 5 else 1, queries, keys, dim)
    tensors = inputs(shape, dtype, device)
    arguments = {k: v for k, v in extras(shape, device).items() if k in names}
    leaves = [t.detach().requires_grad_() for t in tensors]
    result = memattn.cross_attention(*leaves, **arguments, backend=compiled_backend)
    assert result.logsumexp is not None
    detached = [None if field is None else field.detach() for field in result]
    assert_result_within_budget(type(result)(*detached), tensors, arguments)


# How many are too many for a float32 sum in one go, and the few that two keys share.
@pytest.mark.parametrize(("queries", "keys"), [(65536, 8), (240, 2)])
@pytest.mark.parametrize("seed", range(6))
def test_sums_over_queries_are_within_the_error_budget(backend, device, queries, keys, seed):
    torch.manual_seed(seed)
    tensors = inputs((1, 1, queries, keys, 8), dtype_of(backend), device)
    result = memattn.cross_attention(*tensors, backend=backend)
    assert_result_within_budget(result, tensors, {})


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_inputs_of_a_processor_are_within_the_error_budget(backend, device, shape):
    tensors, arguments = inputs(shape, dtype_of(backend), device), extras(shape, device)
    result = memattn.cross_attention(*tensors, **arguments, backend=backend)
    assert_result_within_budget(result, tensors, arguments)


@pytest.mark.parametrize("scale", [0.0, -0.3, 1.0, 4.0])
def test_any_scale_is_within_the_error_budget(backend, device, scale):
    query, key, value = inputs(SHAPES["sd_64px"], device=device)
    result = memattn.cross_attention(query, key, value, scale=scale, backend=backend)
    assert_result_within_budget(result, (query * scale * 32**0.5, key, value), {})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("offset", [1000.0, -1e5])
def test_a_large_bias_on_every_key_changes_nothing(backend, device, dtype, offset):
    shape = SHAPES["sd_64px"]
    tensors = inputs(shape, dtype, device)
    bias = torch.randn(shape[0], shape[3], device=device) + offset
    exact = explicit_cross_attention(*(t.double() for t in tensors), key_bias=bias.double())
    eager = explicit_cross_attention(*tensors, key_bias=bias)
    for statistics in (True, False):
        result = memattn.cross_attention(
            *tensors, key_bias=bias, statistics=statistics, backend=backend
        )
        assert_within_error_budget(result.output, exact=exact.output, eager=eager.output)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "strided", "expanded"])
def test_bias_and_factor_may_have_another_dtype_and_any_strides(backend, device, dtype, layout):
    shape = SHAPES["sd_64px"]
    tensors = inputs(shape, dtype_of(backend), device)
    bias = torch.randn(2, 77, device=device).to(dtype)
    factor = torch.tensor([0.75, 1.25], device=device, dtype=dtype)
    if layout == "strided":
        bias = bias.t().contiguous().t()
        factor = factor.repeat_interleave(2)[::2]
    if layout == "expanded":
        bias, factor = bias[:1].expand(2, 77), factor[:1].expand(2)
    arguments = {"key_bias": bias, "begin_scale": factor}
    result = memattn.cross_attention(*tensors, **arguments, backend=backend)
    same = {k: v.float().contiguous() for k, v in double(arguments).items()}
    assert_result_within_budget(result, tensors, same)


def test_entropy_keeps_its_digits_under_a_large_common_offset(backend, device):
    """logsumexp - sum p s is off by 8e-3 here; the entropy comes from max-shifted scores."""
    query = torch.zeros(1, 1, 4, 8, device=device)
    query[..., 0] = 1.0
    key = torch.zeros(1, 1, 6, 8, device=device)
    key[0, 0, :, 0] = torch.arange(6.0) + 2**16  # logits that float32 holds exactly
    result = memattn.cross_attention(query, key, key, scale=1.0, backend=backend)
    probs = torch.arange(6.0, dtype=torch.float64).softmax(0)
    expected = 4 * torch.special.entr(probs)
    torch.testing.assert_close(
        result.token_entropy[0, 0].cpu().double(), expected, atol=0, rtol=1e-5
    )


def logits_from_zero_to_minus_100(device):
    """Two keys, and queries [1, 1, 4099, 8] whose logits are 0 and an exact number below it."""
    query = torch.zeros(1, 1, 4099, 8, device=device)
    query[0, 0, :, 0] = -100.0 * torch.linspace(0, 1, 4099)
    key = torch.zeros(1, 1, 2, 8, device=device)
    key[0, 0, 1, 0] = 1.0
    return query, key


@pytest.mark.parametrize("place", [0, 1, 3, 70])
def test_small_probabilities_keep_their_digits(backend, device, place):
    query, key = logits_from_zero_to_minus_100(device)
    # The small logit at different places of a vector, among keys that are removed.
    bias = torch.full((1, 77), -torch.inf, device=device)
    bias[0, place] = bias[0, -1] = 0.0
    keys = key[:, :, :1].repeat(1, 1, 77, 1)
    keys[:, :, place] = key[:, :, 1]
    arguments = {"scale": 1.0, "key_bias": bias, "token": torch.tensor([place], device=device)}
    result = memattn.cross_attention(query, keys, keys, **arguments, backend=backend)
    eager = explicit_cross_attention(query, keys, keys, **arguments)
    logits = query[0, 0, :, 0].double().cpu()
    exact = logits.exp() / (1 + logits.exp())
    column, eager_column = (each.token_map[0, 0].double().cpu() for each in (result, eager))
    error, eager_error = ((each - exact).abs() / exact for each in (column, eager_column))
    normal = exact > 1e-30
    assert error[normal].max() <= 2 * eager_error[normal].max() + torch.finfo(torch.float32).eps
    tail = column[~normal]
    assert tail.numel() > 1000
    assert ((tail >= 0) & (tail <= 1.001e-30)).all()
    error = (result.token_entropy[0, 0, place].item() / torch.special.entr(exact).sum()) - 1
    assert abs(error) <= 2e-6

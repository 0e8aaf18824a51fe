"""Every backend found here against the definition: table, budget, law, edge, refusal."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import memattn
from memattn.testing import assert_within_error_budget, explicit_cross_attention

SHAPES = {
    "sd_64px": (2, 3, 64, 77, 32),
    "sd14_level3": (1, 2, 64, 77, 160),
    "one_key": (2, 2, 63, 1, 8),
    "one_query": (2, 2, 1, 77, 40),
    "long_prompt": (1, 2, 130, 333, 24),
    "many_blocks": (1, 1, 2500, 5, 8),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def inputs(shape, dtype=torch.float32, device="cpu"):
    """Query, key and value as a processor passes them: transposed views of (B, L, H, D)."""
    batch, heads, queries, keys, dim = shape
    return tuple(
        torch.randn(batch, length, heads, dim, dtype=dtype, device=device).transpose(1, 2)
        for length in (queries, keys, keys)
    )


def extras(shape, device="cpu"):
    """A key bias with a removed key, a begin scale and a token for each sample."""
    batch, _, _, keys, _ = shape
    key_bias = torch.randn(batch, keys, device=device)
    if keys > 1:
        key_bias[:, -1] = -torch.inf
    return {
        "key_bias": key_bias,
        "begin_scale": torch.linspace(0.5, 1.5, batch, device=device),
        "token": torch.arange(batch, device=device) % keys,
    }


def double(arguments):
    return {k: v.double() if v.is_floating_point() else v for k, v in arguments.items()}


# Table


def test_uniform_logits_give_uniform_attention(backend, device):
    query = torch.zeros(1, 1, 6, 8, device=device)
    key, value = torch.ones(1, 1, 4, 8, device=device), torch.ones(1, 1, 4, 8, device=device)
    result = memattn.cross_attention(query, key, value, backend=backend)
    torch.testing.assert_close(result.output, torch.ones_like(query))
    torch.testing.assert_close(result.token_mass.cpu(), torch.full((1, 1, 4), 1.5))
    entropy = result.token_entropy.sum().item() / 6
    assert entropy == pytest.approx(math.log(4), rel=1e-6)


def test_one_dominant_logit_gives_zero_entropy(backend, device):
    query = torch.full((1, 1, 3, 8), 10.0, device=device)
    key = torch.zeros(1, 1, 5, 8, device=device)
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
    query = torch.zeros(1, 1, 1, 8, device=device)
    query[..., 0] = 1.0
    key = torch.zeros(1, 1, 2, 8, device=device)
    key[0, 0, 0, 0] = 2.0
    bias = torch.tensor([[1.0, 0.0]], device=device)
    factor = torch.tensor([3.0], device=device)
    result = memattn.cross_attention(
        query, key, key, scale=0.5, key_bias=bias, begin_scale=factor, backend=backend
    )
    odds = math.exp(3.0 * (0.5 * 2.0) + 1.0)
    assert result.token_mass[0, 0, 0].item() == pytest.approx(odds / (1 + odds), rel=1e-6)


# Budget


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("with_extras", [False, True], ids=["plain", "extras"])
def test_result_is_within_the_error_budget(backend, device, shape, dtype, with_extras):
    tensors = inputs(shape, dtype, device)
    arguments = extras(shape, device) if with_extras else {}
    result = memattn.cross_attention(*tensors, **arguments, backend=backend)
    exact = explicit_cross_attention(*(t.double() for t in tensors), **double(arguments))
    eager = explicit_cross_attention(*tensors, **arguments)
    assert result.output.dtype == dtype
    assert_within_error_budget(result.output, exact=exact.output, eager=eager.output)
    # Statistics stay float32 whatever the inputs: their budget is that of a float32 run.
    eager = explicit_cross_attention(*(t.float() for t in tensors), **arguments)
    for name in ("token_mass", "token_entropy", *(["token_map"] if with_extras else [])):
        actual = getattr(result, name)
        assert actual.dtype == torch.float32
        assert_within_error_budget(actual, exact=getattr(exact, name), eager=getattr(eager, name))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "bias"])
def test_plain_attention_is_within_the_error_budget(backend, device, dtype, with_bias):
    shape = SHAPES["sd_64px"]
    tensors = inputs(shape, dtype, device)
    arguments = {"key_bias": extras(shape, device)["key_bias"]} if with_bias else {}
    result = memattn.cross_attention(*tensors, **arguments, statistics=False, backend=backend)
    exact = explicit_cross_attention(*(t.double() for t in tensors), **double(arguments))
    eager = explicit_cross_attention(*tensors, **arguments)
    assert_within_error_budget(result.output, exact=exact.output, eager=eager.output)
    assert result[1:] == (None, None, None, None)


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


# Law


@settings(max_examples=25, deadline=None)
@given(
    heads=st.integers(1, 3),
    queries=st.integers(1, 70),
    keys=st.integers(1, 90),
    dim=st.sampled_from([8, 24, 40]),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**16),
)
def test_mass_and_entropy_obey_their_bounds(heads, queries, keys, dim, spread, seed):
    torch.manual_seed(seed)
    query, key, value = inputs((2, heads, queries, keys, dim))
    result = memattn.cross_attention(query * spread, key, value)
    total = torch.full((2, heads), float(queries))
    torch.testing.assert_close(result.token_mass.sum(-1), total, rtol=1e-5, atol=0)
    entropy = result.token_entropy.sum(-1) / queries
    assert result.token_entropy.min() >= -1e-6
    assert entropy.max() <= math.log(keys) + 1e-5


def test_permuting_tokens_permutes_the_statistics(backend, device):
    query, key, value = inputs(SHAPES["sd_64px"], device=device)
    order = torch.randperm(77, device=device)
    result = memattn.cross_attention(query, key, value, backend=backend)
    other = memattn.cross_attention(query, key[:, :, order], value[:, :, order], backend=backend)
    torch.testing.assert_close(other.output, result.output)
    torch.testing.assert_close(other.token_mass, result.token_mass[..., order])
    torch.testing.assert_close(other.token_entropy, result.token_entropy[..., order])


def test_statistics_of_two_query_sets_add_up(backend, device):
    query, key, value = inputs(SHAPES["long_prompt"], device=device)
    whole = memattn.cross_attention(query, key, value, backend=backend)
    parts = [
        memattn.cross_attention(part, key, value, backend=backend)
        for part in (query[:, :, :50], query[:, :, 50:])
    ]
    torch.testing.assert_close(sum(p.token_mass for p in parts), whole.token_mass)
    torch.testing.assert_close(sum(p.token_entropy for p in parts), whole.token_entropy)


def test_a_removed_token_changes_nothing_but_its_own_column(backend, device):
    query, key, value = inputs(SHAPES["sd_64px"], device=device)
    bias = torch.zeros(2, 77, device=device)
    bias[:, 50:] = -torch.inf
    masked = memattn.cross_attention(query, key, value, key_bias=bias, backend=backend)
    short = memattn.cross_attention(query, key[:, :, :50], value[:, :, :50], backend=backend)
    torch.testing.assert_close(masked.output, short.output)
    torch.testing.assert_close(masked.token_mass[..., :50], short.token_mass)
    assert masked.token_mass[..., 50:].count_nonzero() == 0
    assert masked.token_entropy[..., 50:].count_nonzero() == 0


def test_the_map_is_the_tokens_column(backend, device):
    shape = SHAPES["sd_64px"]
    query, key, value = inputs(shape, device=device)
    token = torch.tensor([76, 3], device=device)
    result = memattn.cross_attention(query, key, value, token=token, backend=backend)
    alone = memattn.cross_attention(
        query, key, value, token=token, statistics=False, backend=backend
    )
    chosen = result.token_mass.gather(2, token[:, None, None].expand(-1, 3, 1)).squeeze(2)
    torch.testing.assert_close(result.token_map.sum(-1), chosen)
    assert torch.equal(alone.token_map, result.token_map)
    assert alone.token_mass is None


# Reproducibility


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
    for rows in (slice(0, 1), slice(1, 2), slice(2, shape[0])):
        subset = memattn.cross_attention(
            *(t[rows] for t in tensors),
            **{k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in arguments.items()},
            backend=backend,
        )
        for one, all_rows, repeated in zip(subset, whole, again, strict=True):
            if all_rows is not None:
                assert torch.equal(one, all_rows[rows])
                assert torch.equal(all_rows, repeated)


def test_the_number_of_threads_changes_no_bit(backend, device):
    tensors = inputs((2, 5, 1100, 77, 40), device=device)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(memattn.cross_attention(*tensors, backend=backend))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for one, two in zip(results[0][:3], other[:3], strict=True):
            assert torch.equal(one, two)


# Edge


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


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_huge_logits_stay_finite(backend, device, size):
    query, key, value = inputs((1, 2, 9, 77, 8), device=device)
    result = memattn.cross_attention(query * size, key, value, backend=backend)
    assert all(tensor.isfinite().all() for tensor in result[:3])
    torch.testing.assert_close(result.token_mass.sum(-1).cpu(), torch.full((1, 2), 9.0))


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
def test_an_empty_batch_gives_empty_results(backend, device, statistics):
    shape = (0, 3, 64, 77, 32)
    tensors = inputs(shape, device=device)
    token = torch.zeros(0, dtype=torch.int64, device=device) if statistics else None
    result = memattn.cross_attention(*tensors, token=token, statistics=statistics, backend=backend)
    assert result.output.shape == (0, 3, 64, 32)
    if statistics:
        assert result.token_mass.shape == result.token_entropy.shape == (0, 3, 77)
        assert result.token_map.shape == (0, 3, 64)


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("layout", ["transposed", "contiguous", "sliced"])
def test_output_is_laid_out_for_the_projection(backend, device, layout, statistics):
    query, key, value = inputs((2, 3, 65, 77, 16), device=device)
    if layout == "contiguous":
        query, key, value = (t.contiguous() for t in (query, key, value))
    if layout == "sliced":
        query, key, value = (t[..., ::2] for t in (query, key, value))
    output = memattn.cross_attention(
        query, key, value, statistics=statistics, backend=backend
    ).output
    flat = output.transpose(1, 2).reshape(2, 65, -1)
    assert flat.data_ptr() == output.data_ptr()
    exact = explicit_cross_attention(query.double(), key.double(), value.double()).output
    torch.testing.assert_close(output.double(), exact, atol=1e-5, rtol=0)


def test_autocast_does_not_round_float32(backend, device):
    tensors = inputs((1, 2, 64, 77, 32), device=device)
    plain = memattn.cross_attention(*tensors, backend=backend)
    with torch.autocast(device, dtype=torch.bfloat16):
        inside = memattn.cross_attention(*tensors, backend=backend)
    for one, two in zip(plain[:3], inside[:3], strict=True):
        assert torch.equal(one, two)


# Derivatives of the reference


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
@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
def test_gradients_of_a_sample_without_tokens_are_zero(statistics, dtype):
    query, key, value = (t.requires_grad_() for t in inputs((2, 1, 3, 4, 8), dtype))
    bias = torch.zeros(2, 4)
    bias[1] = -torch.inf
    result = memattn.cross_attention(query, key, value, key_bias=bias, statistics=statistics)
    sum(tensor.sum() for tensor in result[:3] if tensor is not None).backward()
    for tensor in (query, key, value):
        assert tensor.grad[1].count_nonzero() == 0
        assert tensor.grad[0].count_nonzero() > 0
        assert tensor.grad.isfinite().all()


def test_plain_attention_differentiates_its_bias():
    tensors = inputs((2, 2, 5, 7, 8))
    gradients = []
    for statistics in (True, False):
        bias = torch.linspace(4, 7, 14).reshape(2, 7).requires_grad_()
        result = memattn.cross_attention(*tensors, key_bias=bias, statistics=statistics)
        weights = torch.linspace(-1, 1, result.output.numel()).reshape(result.output.shape)
        gradients += torch.autograd.grad((result.output * weights).sum(), bias)
    torch.testing.assert_close(*gradients)


def test_reference_statistics_of_float64_are_float64():
    tensors = tuple(t.double() for t in inputs(SHAPES["sd_64px"]))
    result = memattn.cross_attention(*tensors, backend="reference")
    exact = explicit_cross_attention(*tensors)
    for name in ("output", "token_mass", "token_entropy"):
        actual, expected = getattr(result, name), getattr(exact, name)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


# Refusal: what each backend cannot run it says; the reference runs everything.


def test_reference_can_always_run():
    tensors = inputs((1, 1, 1, 1, 3), torch.float64)
    assert dict(memattn.explain(*tensors))["reference"] is None

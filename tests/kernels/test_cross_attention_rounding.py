"""Results of 16 bits are rounded to nearest, ties to even, and a nan stays one."""

import pytest
import torch

import memattn

DIGITS = {torch.bfloat16: 7, torch.float16: 10}  # of a mantissa, after the leading one


@pytest.mark.parametrize("statistics", [True, False], ids=["statistics", "plain"])
@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize("upper", range(5))
def test_output_is_rounded_to_nearest_with_ties_to_even(backend, device, dtype, upper, statistics):
    """The mean of four neighbours is exact before it is rounded: quarters, halves, all signs."""
    steps = 1 + torch.arange(57.0) * 2.0 ** -DIGITS[dtype]
    value = torch.stack([steps[1:]] * upper + [steps[:-1]] * (4 - upper)).to(dtype)[None, None]
    value = torch.cat([value, -value], dim=1).to(device)
    query, key = torch.zeros_like(value[:, :, :1]), torch.zeros_like(value)
    output = memattn.cross_attention(
        query, key, value, statistics=statistics, backend=backend
    ).output
    assert torch.equal(output, value.double().mean(2, keepdim=True).to(dtype))


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize("bits", [0x7FFF, -1], ids=["positive", "negative"])
def test_a_nan_of_only_ones_among_the_values_stays_nan(backend, device, dtype, bits):
    value = torch.ones(1, 1, 4, 56, dtype=dtype, device=device)
    value.view(torch.int16)[0, 0, 1, ::2] = bits
    output = memattn.cross_attention(
        torch.zeros_like(value[:, :, :1]), torch.zeros_like(value), value, backend=backend
    ).output
    assert output[..., ::2].isnan().all()
    assert (output[..., 1::2] == 1).all()


@pytest.mark.parametrize("dtype", DIGITS, ids=str)
@pytest.mark.parametrize("name", ["key_bias", "begin_scale"])
def test_a_nan_of_only_ones_in_float32_stays_nan(backend, device, dtype, name):
    """Rounded like a number it would carry into the sign, and end as zero."""
    value = torch.ones(1, 1, 4, 56, dtype=dtype, device=device)
    spoiled = torch.ones((1, 4) if name == "key_bias" else (1,), device=device)
    spoiled.view(torch.int32).flatten()[0] = 0x7FFFFFFF
    output = memattn.cross_attention(
        value[:, :, :1], value, value, **{name: spoiled}, backend=backend
    ).output
    assert output.isnan().all()

"""What the Triton kernels are launched with."""

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed")

from memattn.kernels.triton.launch import precision, readable, stride_unit
from tests.kernels.cross_attention import inputs


def test_strides_are_counted_in_eights_where_all_of_them_can_be():
    query, key, value = inputs((2, 3, 5, 7, 40))
    assert stride_unit(query, key, value) == 8
    odd = torch.randn(2, 5, 3 * 40 + 1)[..., :-1].unflatten(2, (3, 40)).transpose(1, 2)
    assert stride_unit(query, odd) == 1


def test_what_cannot_be_read_number_by_number_is_copied():
    query, _, _ = inputs((2, 3, 5, 7, 40))
    assert readable(query) is query
    turned = query.mT.contiguous().mT
    assert readable(turned).stride(3) == 1
    assert torch.equal(readable(turned), query)


@pytest.mark.parametrize(
    ("allowed", "dtype", "expected"),
    [
        (False, torch.float32, "ieee"),
        (True, torch.float32, "tf32"),
        (True, torch.float16, "ieee"),
    ],
)
def test_float32_is_rounded_to_tf32_only_where_torch_may_do_so(allowed, dtype, expected):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        assert precision(dtype) == expected
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("setting", ["tf32", "ieee"])
def test_the_setting_of_cuda_alone_counts_too(setting):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = setting
    try:
        assert precision(torch.float32) == setting
    finally:
        matmul.fp32_precision = before

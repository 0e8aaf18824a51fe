"""What the Triton kernels are launched with."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="triton is not installed")

from memattn.kernels.triton.launch import (
    has_tensor_memory,
    precision_of,
    readable,
    refusal,
    stride_unit,
    strides,
)
from tests.gpus import on_gpu
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


def test_positions_further_apart_than_32_bits_count_are_copied():
    memory = torch.empty(2**31 + 8, dtype=torch.int8)  # of which two pages are ever written
    near = memory.as_strided((1, 1, 2, 8), (0, 0, 2**31 - 9, 1))
    assert readable(near) is near
    far = memory.as_strided((1, 1, 2, 8), (0, 0, 2**31, 1))
    far[0, 0] = torch.arange(16, dtype=torch.int8).view(2, 8)
    assert readable(far).stride(2) == 8
    assert torch.equal(readable(far), far)


def test_an_axis_of_one_may_have_any_stride():
    query, _, _ = inputs((1, 3, 5, 7, 40))
    odd = query.as_strided(query.shape, (7, *query.stride()[1:]))
    assert stride_unit(odd) == 8
    assert strides(8, odd) == (0, 5, 15)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((8, 0), False),
        ((9, 0), False),
        ((10, 0), True),
        ((10, 3), True),
        ((11, 0), True),
        ((12, 0), False),
    ],
)
def test_gpus_that_multiply_into_a_memory_of_their_own(capability, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    device = torch.device("cuda", 10 * capability[0] + capability[1])  # none that is cached
    assert has_tensor_memory(device) is (expected and torch.version.hip is None)
    assert not has_tensor_memory(torch.device("cpu"))


@pytest.mark.parametrize("setting", ["tf32", "ieee"])
def test_float32_on_the_cpu_is_never_rounded_to_tf32(setting):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = setting
    try:
        assert precision_of(torch.zeros(1, 1, 1, 8)) == "ieee"
    finally:
        matmul.fp32_precision = before


@on_gpu
@pytest.mark.parametrize(("setting", "expected"), [("tf32", "tf32"), ("ieee", "ieee")])
def test_float32_is_rounded_to_tf32_where_torch_may_do_so(setting, expected):
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = setting
    try:
        assert precision_of(torch.zeros(1, 1, 1, 8, device="cuda")) == expected
        assert precision_of(torch.zeros(1, 1, 1, 8, device="cuda").half()) == "ieee"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize(
    ("major", "expected"),
    [(7, "it takes compute capability 8.0 or more, got 7.5 (some GPU)"), (8, None), (12, None)],
)
@pytest.mark.skipif(torch.version.hip is not None, reason="this torch is AMD's")
def test_a_gpu_that_triton_does_not_compile_for_is_refused(monkeypatch, major, expected):
    gpu = SimpleNamespace(major=major, minor=5, name="some GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    with FakeTensorMode():
        assert refusal(torch.empty(1, 1, 1, 8, device="cuda")) == expected

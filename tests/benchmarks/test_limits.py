import pytest
import torch

from memattn.benchmarks import limits

REACHED = {"copy": 1e6, "fp32": 1e9, "bf16": 4e9}


def test_a_case_takes_the_longer_of_moving_and_computing():
    assert limits.limit_seconds(8000, 1_000_000, "fp32", REACHED) == 8e-3
    assert limits.limit_seconds(800, 4_000_000, "fp32", REACHED) == 4e-3


def test_products_count_at_the_faster_of_fp32_and_the_cases_dtype():
    slow = {**REACHED, "bf16": 5e8}
    assert limits.limit_seconds(1, 4_000_000, "bf16", REACHED) == 1e-3
    assert limits.limit_seconds(1, 4_000_000, "bf16", slow) == 4e-3
    assert limits.limit_seconds(1, 4_000_000, "fp16", REACHED) == 4e-3


@pytest.mark.parametrize("bf16", [2.0, 0.1])
def test_limits_are_a_copy_and_products_that_the_cpu_multiplies_fast(bf16, monkeypatch):
    asked = []

    def speed(device, dtype, side):
        if side > 1000:
            asked.append(dtype)
        return bf16 if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(limits, "copy_bandwidth", lambda device: 3.0)
    monkeypatch.setattr(limits, "matmul_speed", speed)
    fast = {"bf16": bf16} if bf16 > 1 else {}
    assert limits.limits("cpu") == {"copy": 3.0, "fp32": 1.0, **fast}
    assert asked == [torch.float32, *([torch.bfloat16] if fast else [])]


def test_a_limit_is_the_shortest_of_several_calls(monkeypatch):
    seconds = iter([3.0, 1.0, 5.0])
    monkeypatch.setattr(limits, "wall_seconds", lambda call, device: next(seconds))
    monkeypatch.setattr(limits, "_TRIES", 3)
    assert limits._least(lambda: None, "cpu") == 1.0

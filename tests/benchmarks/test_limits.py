import torch

from memattn.benchmarks import limits
from memattn.benchmarks.cases import Case
from memattn.benchmarks.shapes import Shape

SHAPE = Shape("hand", "none", batch=1, heads=1, queries=100, keys=25, dim=8, layers=1)


def test_the_floor_is_the_longer_of_moving_and_computing(monkeypatch):
    monkeypatch.setattr(limits, "copy_bandwidth", lambda device: 1e6)
    monkeypatch.setattr(limits, "matmul_speed", lambda device, dtype: 1e9)
    # (100 + 100 + 25 + 25) * 8 numbers of 4 bytes at 1 MB/s
    assert limits.floor_seconds(Case(SHAPE, "fp32", "cpu")) == 8000 / 1e6
    monkeypatch.setattr(limits, "copy_bandwidth", lambda device: 1e12)
    assert limits.floor_seconds(Case(SHAPE, "fp32", "cpu")) == 4 * 100 * 25 * 8 / 1e9


def test_products_count_in_float32_on_the_cpu_and_in_the_inputs_dtype_on_a_gpu(monkeypatch):
    monkeypatch.setattr(limits, "copy_bandwidth", lambda device: 1e12)
    asked = []
    monkeypatch.setattr(limits, "matmul_speed", lambda device, dtype: asked.append(dtype) or 1e9)
    limits.floor_seconds(Case(SHAPE, "bf16", "cpu"))
    limits.floor_seconds(Case(SHAPE, "bf16", "cuda"))
    assert asked == [torch.float32, torch.bfloat16]


def test_a_limit_is_the_shortest_of_several_calls(monkeypatch):
    clock = iter([0.0, 3.0, 10.0, 11.0, 20.0, 25.0])
    monkeypatch.setattr(limits.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(limits, "_TRIES", 3)
    assert limits._least(lambda: None, "cpu") == 1.0

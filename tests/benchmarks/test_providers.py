import pytest
import torch

import memattn
from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.measurement import measure
from memattn.benchmarks.providers import Attended, Provider, plain_attention, providers
from memattn.benchmarks.shapes import Shape
from memattn.benchmarks.verification import Unavailable, truth, verify

SMALL = Shape("small", "none", batch=2, heads=2, queries=24, keys=7, dim=16, layers=1)
CASES = [Case(SMALL, dtype, "cpu") for dtype in ("fp32", "bf16", "fp16")]


def named(case, name):
    return next(provider for provider in providers(case) if provider.name == name)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_provider_gives_the_right_result(case):
    tensors, expected = inputs(case), truth(case)
    for provider in providers(case):
        verify(provider, tensors, expected)


def test_all_backends_that_can_run_take_part_with_statistics_and_without():
    tensors = inputs(CASES[0])
    able = [name for name, reason in memattn.explain(*tensors) if reason is None]
    ours = [p.name for p in providers(CASES[0]) if p.name.startswith("memattn_")]
    assert ours == [name for b in able for name in (f"memattn_{b}", f"memattn_{b}_without")]
    assert "memattn_reference" in ours


def test_plain_attention_is_every_kernel_that_torch_has_for_the_device():
    names = [provider.name for provider in plain_attention("cuda")]
    kernels = ["sdpa_flash", "sdpa_cudnn", "sdpa_efficient", "sdpa_math"]
    assert names == ["sdpa", *kernels, "eager"]
    assert [p.name for p in plain_attention("cpu")] == ["sdpa", "sdpa_flash", "sdpa_math", "eager"]


def test_a_kernel_that_torch_does_not_have_is_unavailable_not_wrong():
    cudnn = next(p for p in plain_attention("cuda") if p.name == "sdpa_cudnn")
    with pytest.raises(Unavailable, match=r"^No viable backend"):
        verify(cudnn, inputs(CASES[0]), truth(CASES[0]))


def planted(field, change):
    """memattn's own answer with an error in one place."""

    def call(query, key, value):
        answer = named(CASES[0], "memattn_reference").call(query, key, value)
        return answer._replace(**{field: change(getattr(answer, field).clone())})

    return Provider("planted", "with statistics", call)


def off_at_one_place(tensor):
    tensor[..., -1] += 1e-3
    return tensor


@pytest.mark.parametrize("field", Attended._fields)
def test_a_wrong_result_is_refused_and_never_timed(field):
    calls = []
    wrong = planted(field, off_at_one_place)
    counted = Provider("planted", wrong.kind, lambda *qkv: calls.append(1) or wrong.call(*qkv))
    outcomes = measure(CASES[0], [counted, named(CASES[0], "sdpa")], turns=2)
    with pytest.raises(AssertionError, match=f"^planted, {field}: got an error of "):
        raise outcomes["planted"]
    assert len(calls) == 1
    assert [len(turn) >= 3 for turn in outcomes["sdpa"]] == [True, True]


def test_statistics_that_are_missing_are_refused():
    wrong = planted("token_mass", lambda mass: None)
    with pytest.raises(AttributeError):
        raise measure(CASES[0], [wrong], turns=1)["planted"]


def test_calls_are_timed_without_autograd():
    modes = []

    def call(query, key, value):
        modes.append(torch.is_inference_mode_enabled())
        return named(CASES[0], "sdpa").call(query, key, value)

    measure(CASES[0], [Provider("watched", "plain", call)], turns=1)
    assert set(modes) == {True}

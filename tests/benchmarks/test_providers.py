import importlib
import sys

import pytest
import torch

import memattn
from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.measurement import measure
from memattn.benchmarks.providers import (
    Attended,
    Provider,
    Unavailable,
    absent,
    plain_attention,
    providers,
    with_colreduce,
)
from memattn.benchmarks.shapes import Shape
from memattn.benchmarks.verification import check, first_result, truth

SMALL = Shape("small", "none", batch=2, heads=2, queries=24, keys=7, dim=16, layers=1)
CASES = [Case(SMALL, dtype, "cpu") for dtype in ("fp32", "bf16", "fp16")]


def verify(provider, tensors, expected):
    check(provider, first_result(provider, tensors), expected)


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
    assert [len(turn) >= 3 for turn in outcomes["sdpa"].eager] == [True, True]


def test_a_rivals_wrong_result_is_told_and_not_timed():
    right = named(CASES[0], "sdpa").call

    def wrong(query, key, value):
        answer = right(query, key, value)
        return answer._replace(output=off_at_one_place(answer.output.clone()))

    outcomes = measure(CASES[0], [Provider("planted", "plain", wrong)], turns=2)
    with pytest.raises(Unavailable, match=r"^planted, output: got an error of "):
        raise outcomes["planted"]


def test_on_the_cpu_there_is_no_kernel_time():
    measured = measure(CASES[0], [named(CASES[0], "sdpa")], turns=2)["sdpa"]
    assert (measured.warm, measured.cold, measured.not_captured) == ([], [], "")


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


COLREDUCE = """
def flash_colreduce(query, key, reduction):
    assert reduction == "sum"
    if query.shape[3] == 72:
        raise ValueError("no such depth\\nand more")
    return (query @ key.mT * query.shape[3] ** -0.5).softmax(dim=3).sum(dim=2)
"""


@pytest.fixture
def not_imported():
    before = sys.modules.pop("flash_colreduce", None)
    yield
    sys.modules.pop("flash_colreduce", None)
    if before is not None:
        sys.modules["flash_colreduce"] = before


def test_flash_colreduce_takes_part_where_it_can_be_imported(tmp_path, monkeypatch, not_imported):
    assert absent("cpu") == {}
    (tmp_path / "flash_colreduce.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    assert with_colreduce() == ()
    (reason,) = absent("cuda").values()
    assert reason == "it could not be imported (No module named 'a_package_that_is_not_there')"
    (tmp_path / "flash_colreduce.py").write_text(COLREDUCE)
    importlib.invalidate_caches()
    assert absent("cuda") == {}
    made = with_colreduce()
    names = [f"sdpa_{kernel}_with_colreduce" for kernel in ("flash", "cudnn", "efficient")]
    assert [provider.name for provider in made] == names
    verify(made[0], inputs(CASES[0]), truth(CASES[0]))
    deep = Case(SMALL._replace(dim=72), "fp32", "cpu")
    with pytest.raises(Unavailable, match=r"^flash-colreduce: no such depth$"):
        first_result(made[0], inputs(deep))

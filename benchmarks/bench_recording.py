"""Whole denoisers, recorded and otherwise changed, by stock ones: paired ratios."""

import gc
import statistics
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch

from memattn.benchmarks import arms, denoisers
from memattn.benchmarks.captured import captured_call, recorder_of_calls
from memattn.benchmarks.cases import DTYPES
from memattn.benchmarks.denoisers import Denoiser
from memattn.benchmarks.host_calls import host_calls
from memattn.benchmarks.paired import in_rounds, paired_ratio
from memattn.benchmarks.peak_memory import peak_bytes
from memattn.benchmarks.turns import Playback

_PLAYBACK = Playback()


class _Comparison(NamedTuple):
    """What of two arms' runs of the same round is compared."""

    arm: str
    baseline: str
    compared: Callable[[arms.Seconds, arms.Seconds], tuple[float, float]]


class _Subject(NamedTuple):
    """A denoiser to be built when its turn comes, how many rounds it gets, what is compared."""

    build: Callable[[], Denoiser]
    rounds: int
    comparisons: dict[str, _Comparison]


class _Measured(NamedTuple):
    """All that was measured of one denoiser.

    Attributes:
        facts: What is the same for every comparison.
        rounds: By arm, the seconds of each round.
        not_captured: Why there is no graph of a call on a GPU, or None.
        recorded: Of the recorded run by the stock one: bytes, and on a GPU the host's calls.
    """

    facts: dict[str, object]
    rounds: dict[str, list[arms.Seconds]]
    not_captured: Exception | None
    recorded: dict[str, object]


def _whole(ours: arms.Seconds, stock: arms.Seconds) -> tuple[float, float]:
    return ours.whole, stock.whole


def _layers(ours: arms.Seconds, stock: arms.Seconds) -> tuple[float, float]:
    assert ours.layers is not None
    assert stock.layers is not None
    return ours.layers, stock.layers


def _whole_by_layers(ours: arms.Seconds, stock: arms.Seconds) -> tuple[float, float]:
    """The stock run with the other's layers, where nothing outside of the layers has changed.

    What is looked for is smaller than the spread of whole runs.
    """
    in_ours, in_stock = _layers(ours, stock)
    return stock.whole - in_stock + in_ours, stock.whole


# By what is printed. A compiled denoiser's layers have no time of their own.
_EVERYWHERE = {
    "whole denoiser": _Comparison("recorded", "stock", _whole),
    "whole denoiser, AttnProcessor": _Comparison("AttnProcessor", "stock", _whole),
}
_EAGER = {
    **_EVERYWHERE,
    "cross-attention layers": _Comparison("recorded", "stock", _layers),
    "constant text projections (layers' times)": _Comparison(
        "constants", "stock", _whole_by_layers
    ),
}
_EAGER_AND_CAPTURED = {
    **_EAGER,
    "one call as a CUDA graph": _Comparison("recorded graph", "graph", _whole),
}
# A call takes tens of milliseconds. A GPU that is lent is lent for minutes, and most of them go to
# building and compiling: few steps, and as many rounds as an interval needs to be narrow.
_GPU_RUN: dict[str, Any] = {"dtype": torch.bfloat16, "device": "cuda", "steps": 5}


def _compiled(build: Callable[..., Denoiser]) -> Denoiser:
    return denoisers.compiled(build(**_GPU_RUN))


# SDXL at 512 px has every layer of SDXL, at a quarter of the queries; at its own 1024 px one call
# takes about a minute on two cores.
_SUBJECTS = {
    "cpu": {
        "testbed": _Subject(denoisers.packaged_testbed, 16, _EAGER),
        "sd14-fp32": _Subject(partial(denoisers.sd_1_4, torch.float32), 10, _EAGER),
        "sdxl-512px-bf16": _Subject(partial(denoisers.sdxl, torch.bfloat16, 512), 6, _EAGER),
    },
    "cuda": {
        "sd14-bf16": _Subject(partial(denoisers.sd_1_4, **_GPU_RUN), 10, _EAGER_AND_CAPTURED),
        "sd14-bf16-compiled": _Subject(partial(_compiled, denoisers.sd_1_4), 10, _EVERYWHERE),
        "sdxl-bf16": _Subject(partial(denoisers.sdxl, **_GPU_RUN), 8, _EAGER_AND_CAPTURED),
        "sdxl-bf16-compiled": _Subject(partial(_compiled, denoisers.sdxl), 8, _EVERYWHERE),
    },
}
_SLOW_SUBJECTS = {
    "cpu": {
        "sd14-bf16": _Subject(partial(denoisers.sd_1_4, torch.bfloat16), 10, _EAGER),
        "sdxl-bf16": _Subject(partial(denoisers.sdxl, torch.bfloat16), 6, _EAGER),
    },
    "cuda": {
        "sd14-768px-bf16": _Subject(
            partial(denoisers.sd_1_4, pixels=768, **_GPU_RUN), 10, _EAGER_AND_CAPTURED
        ),
    },
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Denoiser by denoiser."""
    device = metafunc.config.getoption("device")
    slow = _SLOW_SUBJECTS[device] if metafunc.config.getoption("every") else {}
    metafunc.parametrize(
        ("subject", "what"),
        [
            pytest.param(subject, what, id=f"{name}-{what}")
            for name, subject in {**_SUBJECTS[device], **slow}.items()
            for what in subject.comparisons
        ],
    )


@pytest.fixture(scope="module")
def outcomes() -> dict[Callable[[], Denoiser], _Measured | Exception]:
    """What was measured, by what builds the denoiser; once for all of its comparisons."""
    return {}


def _outcome(subject: _Subject) -> _Measured | Exception:
    """What was measured, or why nothing was: every comparison of the denoiser raises it."""
    try:
        return _measure(subject)
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # which hold the denoiser
        return error


def _measure(subject: _Subject) -> _Measured:
    """Build a denoiser, check its arms and time them; only one is held at a time."""
    gc.collect()  # several gigabytes, of the one before
    denoiser = subject.build()
    arms.verify(denoiser)
    recorded = {**_memory(denoiser), **_host_calls(denoiser)}
    calls: dict[str, Callable[[], arms.Seconds]] = {
        name: partial(arms.timed, denoiser, arm) for name, arm in arms.arms(denoiser).items()
    }
    not_captured: Exception | None = None
    try:
        calls |= _graphs(denoiser)
    except (AssertionError, RuntimeError) as error:  # the test of that comparison raises it
        traceback.clear_frames(error.__traceback__)
        not_captured = error
    rounds = in_rounds(calls, subject.rounds)
    names = {dtype: name for name, dtype in DTYPES.items()}
    facts: dict[str, object] = {
        "denoiser": denoiser.label,
        "dtype": names[denoiser.dtype],
        "backend": arms.backends(denoiser),
    }
    return _Measured(facts, rounds, not_captured, recorded)


def _memory(denoiser: Denoiser) -> dict[str, object]:
    kept = []
    recorded = peak_bytes(lambda: kept.append(arms.recorded(denoiser)[1]), denoiser.device)
    return {
        "extra_peak_bytes": recorded - peak_bytes(denoiser.run, denoiser.device),
        "record_bytes": arms.record_bytes(kept[0]),
    }


def _host_calls(denoiser: Denoiser) -> dict[str, object]:
    if denoiser.device == "cpu":
        return {}
    one_step = denoiser.with_steps(1)  # a trace of more takes longer to read than it says
    recorded, stock = host_calls(lambda: arms.recorded(one_step)), host_calls(one_step.run)
    return {
        "launches": recorded.launches,
        "stock_launches": stock.launches,
        "waits": recorded.waits,
        "stock_waits": stock.waits,
    }


def _graphs(denoiser: Denoiser) -> dict[str, Callable[[], arms.Seconds]]:
    """One captured call, stock and recorded; they predict the same."""
    if denoiser.device == "cpu" or denoiser.is_compiled:
        return {}
    stock = captured_call(denoiser)
    recorded = captured_call(denoiser, recorder_of_calls(denoiser))
    arms.check_alike(denoiser, "recorded graph", recorded.result[0], stock.result[0])
    return {
        "graph": lambda: arms.Seconds(stock.seconds(), None),
        "recorded graph": lambda: arms.Seconds(recorded.seconds(), None),
    }


@pytest.mark.benchmark(timer=_PLAYBACK.now)
def test_recording(
    subject: _Subject,
    what: str,
    outcomes: dict[Callable[[], Denoiser], _Measured | Exception],
    benchmark: Any,  # noqa: ANN401
) -> None:
    """One comparison of one denoiser; the time shown is the changed run's, or its layers'."""
    if subject.build not in outcomes:
        outcomes[subject.build] = _outcome(subject)
    measured = outcomes[subject.build]
    if isinstance(measured, Exception):
        raise measured
    arm, baseline, compared = subject.comparisons[what]
    if arm not in measured.rounds and measured.not_captured is not None:
        raise measured.not_captured
    rounds = zip(measured.rounds[arm], measured.rounds[baseline], strict=True)
    ours, stock = zip(*(compared(*seconds) for seconds in rounds), strict=True)
    ratio = paired_ratio(ours, stock)
    benchmark.group = f"{measured.facts['denoiser']}, {measured.facts['dtype']}"
    benchmark.extra_info.update(
        {
            "kind": "paired",
            "what": what,
            **measured.facts,
            "ratio": ratio.ratio,
            "ratio_low": ratio.low,
            "ratio_high": ratio.high,
            "pairs": len(ours),
            "stock_seconds": statistics.median(stock),
            **(measured.recorded if what == "whole denoiser" else {}),
        }
    )
    _PLAYBACK.load(list(ours))
    benchmark.pedantic(_PLAYBACK.next_round, rounds=len(ours))

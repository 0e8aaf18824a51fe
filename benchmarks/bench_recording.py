"""Whole denoisers, recorded and otherwise changed, by stock ones: paired ratios on the CPU."""

import gc
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch

from memattn.benchmarks import arms, denoisers
from memattn.benchmarks.cases import DTYPES
from memattn.benchmarks.denoisers import Denoiser
from memattn.benchmarks.paired import in_rounds, paired_ratio
from memattn.benchmarks.peak_memory import peak_bytes
from memattn.benchmarks.turns import Playback

_PLAYBACK = Playback()


class _Subject(NamedTuple):
    """A denoiser to be built when its turn comes, and how many rounds it gets."""

    build: Callable[[], Denoiser]
    rounds: int


class _Measured(NamedTuple):
    """All that was measured of one denoiser.

    Attributes:
        facts: What is the same for every comparison.
        rounds: By arm, the seconds of each round.
        memory: Bytes, of the recorded run by the stock one.
    """

    facts: dict[str, object]
    rounds: dict[str, list[arms.Seconds]]
    memory: dict[str, object]


# SDXL at 512 px has every layer of SDXL, at a quarter of the queries; at its own 1024 px one call
# takes about a minute on two cores.
_SUBJECTS = {
    "testbed": _Subject(denoisers.packaged_testbed, 16),
    "sd14-fp32": _Subject(partial(denoisers.sd_1_4, torch.float32), 10),
    "sdxl-512px-bf16": _Subject(partial(denoisers.sdxl, torch.bfloat16, pixels=512), 6),
}
_SLOW_SUBJECTS = {
    "sd14-bf16": _Subject(partial(denoisers.sd_1_4, torch.bfloat16), 10),
    "sdxl-bf16": _Subject(partial(denoisers.sdxl, torch.bfloat16), 6),
}


def _whole(ours: arms.Seconds, stock: arms.Seconds) -> tuple[float, float]:
    return ours.whole, stock.whole


def _layers(ours: arms.Seconds, stock: arms.Seconds) -> tuple[float, float]:
    return ours.layers, stock.layers


def _whole_by_layers(ours: arms.Seconds, stock: arms.Seconds) -> tuple[float, float]:
    """The stock run with the other's layers, where nothing outside of the layers has changed.

    What is looked for is smaller than the spread of whole runs.
    """
    return stock.whole - stock.layers + ours.layers, stock.whole


# By what is printed: the arm, and what of it is compared with the stock run of the same round.
_COMPARISONS = {
    "whole denoiser": ("recorded", _whole),
    "cross-attention layers": ("recorded", _layers),
    "whole denoiser, AttnProcessor": ("AttnProcessor", _whole),
    "constant text projections (layers' times)": ("constants", _whole_by_layers),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Denoiser by denoiser: only one is held at a time."""
    every = metafunc.config.getoption("every")
    subjects = {**_SUBJECTS, **_SLOW_SUBJECTS} if every else _SUBJECTS
    metafunc.parametrize(
        "measured",
        [pytest.param(subject, id=name) for name, subject in subjects.items()],
        indirect=True,
        scope="module",
    )


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Iterator[_Measured]:
    """One denoiser, measured once for all comparisons after its arms were checked."""
    if request.config.getoption("device") != "cpu":
        pytest.skip("whole denoisers are timed on the CPU only, so far")
    subject: _Subject = request.param
    denoiser = subject.build()
    arms.verify(denoiser)
    memory = _memory(denoiser)
    calls = {name: partial(arms.timed, denoiser, arm) for name, arm in arms.arms(denoiser).items()}
    rounds = in_rounds(calls, subject.rounds)
    names = {dtype: name for name, dtype in DTYPES.items()}
    facts: dict[str, object] = {
        "denoiser": denoiser.label,
        "dtype": names[denoiser.dtype],
        "backend": arms.backends(denoiser),
    }
    yield _Measured(facts, rounds, memory)
    del denoiser, calls
    gc.collect()  # several gigabytes, before the next one is built


def _memory(denoiser: Denoiser) -> dict[str, object]:
    kept = []
    recorded = peak_bytes(lambda: kept.append(arms.recorded(denoiser)[1]))
    return {
        "extra_peak_bytes": recorded - peak_bytes(denoiser.run),
        "record_bytes": arms.record_bytes(kept[0]),
    }


@pytest.mark.benchmark(timer=_PLAYBACK.now)
@pytest.mark.parametrize("what", _COMPARISONS)
def test_recording(measured: _Measured, what: str, benchmark: Any) -> None:  # noqa: ANN401
    """One comparison of one denoiser; the time shown is the changed run's, or its layers'."""
    arm, compared = _COMPARISONS[what]
    rounds = zip(measured.rounds[arm], measured.rounds["stock"], strict=True)
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
            **(measured.memory if what == "whole denoiser" else {}),
        }
    )
    _PLAYBACK.load(list(ours))
    benchmark.pedantic(_PLAYBACK.next_round, rounds=len(ours))

"""Times several calls in turns, so that a machine's drift reaches all of them alike.

pytest-benchmark times one function until it is done, and then the next. On a shared machine the
clock rate and the neighbours change within seconds, and that change would become a ratio. So all
calls of a group are timed here, a few rounds of each per turn; `Playback` then hands the rounds to
pytest-benchmark, which tabulates, compares and saves them as usual.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch

from memattn.benchmarks.orders import orders

TURNS = 8  # even: every order has its reverse
_SECONDS = 0.08  # of each call per turn
_FEWEST = 3  # rounds per turn, however long they last
_WARM_UP = 3  # calls: past lazy initialisation, compilation and autotuning


class Timeable(NamedTuple):
    """A call without arguments, and what has to be entered around its rounds."""

    call: Callable[[], object]
    around: Callable[[], contextlib.AbstractContextManager[None]]


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def in_turns(
    timeables: Mapping[str, Timeable], device: str, *, turns: int = TURNS, seconds: float = _SECONDS
) -> dict[str, list[list[float]]]:
    """Time calls in turns, in the order of `orders`.

    The first call of a call's rounds is not counted: it finds the caches full of another's data.

    Args:
        timeables: What to time, by name.
        device: "cpu" or "cuda", which is waited for inside each round.
        turns: How many turns.
        seconds: How long the rounds of one call last per turn.

    Returns:
        By name, for each turn the seconds of its rounds.
    """
    for timeable in timeables.values():
        with timeable.around():
            for _ in range(_WARM_UP):
                _time(timeable.call, device)
    times: dict[str, list[list[float]]] = {name: [] for name in timeables}
    with _without_collector():
        for order in orders(timeables, turns):
            for name in order:
                times[name].append(_rounds(timeables[name], device, seconds))
    return times


def _time(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def _rounds(timeable: Timeable, device: str, seconds: float) -> list[float]:
    """Seconds of one turn's rounds."""
    times: list[float] = []
    with timeable.around():
        _time(timeable.call, device)
        end = time.perf_counter() + seconds
        while len(times) < _FEWEST or time.perf_counter() < end:
            times.append(_time(timeable.call, device))
    return times


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Playback:
    """A clock for pytest-benchmark on which recorded rounds pass.

    As the timer of `benchmark`, with `next_round` as the function it times, pytest-benchmark reads
    exactly the recorded seconds.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._seconds: Iterator[float] = iter(())

    def load(self, seconds: list[float]) -> None:
        """Play these rounds next."""
        self._now = 0.0
        self._seconds = iter(seconds)

    def now(self) -> float:
        """The time on this clock."""
        return self._now

    def next_round(self) -> None:
        """Let one recorded round pass."""
        self._now += next(self._seconds)

"""Times several calls in turns, so that a machine's drift reaches all of them alike.

pytest-benchmark times one function until it is done, and then the next. On a shared machine the
clock rate and the neighbours change within seconds, and that change would become a ratio. So all
calls of a group are timed here, a few rounds of each per turn; `Playback` then hands the rounds to
pytest-benchmark, which tabulates, compares and saves them as usual.
"""

import contextlib
import gc
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch

from memattn.benchmarks.orders import orders

TURNS = 8  # even: every order has its reverse
# Of each call per turn. A GPU's calls last microseconds, and each is timed in three ways.
_SECONDS = {"cpu": 0.08, "cuda": 0.01}
_FEWEST = 3  # rounds per turn, however long they last
_WARM_UP = 3  # rounds: past lazy initialisation, compilation and autotuning

Name = TypeVar("Name", bound=Hashable)


class Timeable(NamedTuple):
    """A round, which returns the seconds it took, and what has to be entered around rounds."""

    round: Callable[[], float]
    around: Callable[[], contextlib.AbstractContextManager[None]]


def wall_seconds(call: Callable[[], object], device: str) -> float:
    """Make a call and wait for the device: what a program that calls it once has to wait."""
    synchronise(device)  # of what was asked of it before
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def in_turns(
    timeables: Mapping[Name, Timeable],
    device: str,
    *,
    turns: int = TURNS,
    seconds: float | None = None,
) -> dict[Name, list[list[float]]]:
    """Time rounds in turns, in the order of `orders`.

    The first round of a turn is not counted: it finds the caches full of another's data.

    Args:
        timeables: What to time, by name.
        device: "cpu" or "cuda", which says how long a turn is.
        turns: How many turns.
        seconds: How long the rounds of one timeable last per turn, if not as usual.

    Returns:
        By name, for each turn the seconds of its rounds.
    """
    length = _SECONDS[device] if seconds is None else seconds
    for timeable in timeables.values():
        with timeable.around():
            for _ in range(_WARM_UP):
                timeable.round()
    times: dict[Name, list[list[float]]] = {name: [] for name in timeables}
    with _without_collector():
        for order in orders(timeables, turns):
            for name in order:
                times[name].append(_rounds(timeables[name], length))
    return times


def _rounds(timeable: Timeable, seconds: float) -> list[float]:
    """Seconds of one turn's rounds."""
    times: list[float] = []
    with timeable.around():
        timeable.round()
        end = time.perf_counter() + seconds
        while len(times) < _FEWEST or time.perf_counter() < end:
            times.append(timeable.round())
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

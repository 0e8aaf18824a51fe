import gc
import time

import pytest

from memattn.benchmarks.orders import orders
from memattn.benchmarks.turns import Playback, Timeable, in_turns, wall_seconds


class Calls:
    """Calls that note who was called, and whether the collector was off."""

    def __init__(self, **seconds):
        self.order, self.collecting, self.entered = [], [], []
        self.timeables = {
            name: Timeable(lambda n=name, s=pause: self.call(n, s), lambda n=name: self.around(n))
            for name, pause in seconds.items()
        }

    def call(self, name, seconds):
        assert self.entered == [name]
        if not self.order or self.order[-1] != name:
            self.order.append(name)
        self.collecting.append(gc.isenabled())
        return wall_seconds(lambda: time.sleep(seconds), "cpu")

    def around(self, name):
        outer = self

        class Around:
            def __enter__(self):
                outer.entered.append(name)

            def __exit__(self, *error):
                outer.entered.remove(name)

        return Around()


def test_every_second_turn_is_the_one_before_reversed():
    calls = Calls(a=0.0, b=0.0, c=0.0)
    in_turns(calls.timeables, "cpu", turns=4, seconds=0.0)
    # warm-up, then the turns; a name is noted once where it ends one turn and begins another
    expected = "abc"
    for order in orders("abc", 4):
        expected += "".join(order).removeprefix(expected[-1])
    assert "".join(calls.order) == expected


def test_rounds_fill_the_time_and_are_never_fewer_than_three():
    calls = Calls(short=0.001, long=0.05)
    times = in_turns(calls.timeables, "cpu", turns=2, seconds=0.02)
    assert [len(turn) for turn in times["long"]] == [3, 3]
    assert all(3 < len(turn) <= 20 for turn in times["short"])
    assert min(min(turn) for turn in times["long"]) >= 0.05
    assert min(min(turn) for turn in times["short"]) >= 0.001


def test_the_collector_is_off_while_rounds_are_timed_and_on_again_after():
    calls = Calls(a=0.0)
    in_turns(calls.timeables, "cpu", turns=1, seconds=0.0)
    assert calls.collecting[-3:] == [False] * 3
    assert gc.isenabled()


def test_nothing_to_time_is_nothing():
    assert in_turns({}, "cpu") == {}


def test_a_playback_shows_exactly_the_recorded_rounds():
    playback, recorded = Playback(), [0.25, 1e-6, 0.5]
    playback.load(recorded)
    shown = []
    for _ in recorded:
        start = playback.now()
        playback.next_round()
        shown.append(playback.now() - start)
    assert shown == pytest.approx(recorded, rel=1e-9)

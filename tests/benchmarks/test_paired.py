import itertools
import math
import random

import pytest

from memattn.benchmarks.paired import FEWEST_PAIRS, in_rounds, paired_ratio


def test_a_known_ratio_is_found_whatever_the_machine_does_from_round_to_round():
    machine = [1.0, 3.0, 0.7, 1.9, 1.2, 8.0, 1.1]
    found = paired_ratio([0.9 * speed for speed in machine], machine)
    assert found == pytest.approx((0.9, 0.9, 0.9))


def test_the_interval_of_six_pairs_is_their_whole_range():
    ratios = [0.97, 1.02, 0.99, 1.01, 1.00, 0.98]
    found = paired_ratio(ratios, [1.0] * 6)
    assert (found.low, found.high) == pytest.approx((0.97, 1.02))
    assert 0.98 < found.ratio < 1.01


def test_the_interval_of_ten_pairs_leaves_out_eight_means_at_each_end():
    # C = 9 in Hollander and Wolfe's table: P(W <= 8) = 0.0244 and P(W <= 9) = 0.0322
    logs = [0.001 * 2**power for power in range(10)]
    means = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(logs, 2))
    found = paired_ratio([math.exp(log) for log in logs], [1.0] * 10)
    assert math.log(found.low) == pytest.approx(means[8])
    assert math.log(found.high) == pytest.approx(means[-9])
    assert math.log(found.ratio) == pytest.approx(means[len(means) // 2])


@pytest.mark.parametrize("pairs", [6, 10, 20])
def test_the_interval_holds_the_truth_in_95_of_100_runs_with_hiccups(pairs):
    draw = random.Random(0)

    def seconds(true):
        hiccup = 1.5 if draw.random() < 0.1 else 1.0
        return true * math.exp(draw.gauss(0.0, 0.02)) * hiccup

    runs = 1000
    held = 0
    for _ in range(runs):
        ours = [seconds(0.95) for _ in range(pairs)]
        found = paired_ratio(ours, [seconds(1.0) for _ in range(pairs)])
        held += found.low <= 0.95 <= found.high
    # three standard errors of a share of 0.95 in a thousand runs are 0.02
    assert 0.93 <= held / runs <= 0.985


def test_one_hiccup_does_not_move_the_ratio():
    ours, stock = [0.95] * 10, [1.0] * 10
    ours[3] = 4.0
    assert paired_ratio(ours, stock).ratio == pytest.approx(0.95)


@pytest.mark.parametrize(("ours", "stock"), [(5, 5), (7, 6), (0, 0)])
def test_too_few_pairs_are_refused(ours, stock):
    with pytest.raises(
        ValueError, match=f"got {ours} and {stock} times, .* {FEWEST_PAIRS} or more"
    ):
        paired_ratio([1.0] * ours, [1.0] * stock)


def test_every_round_makes_every_call_once_and_every_second_round_is_the_one_before_reversed():
    made = []

    def call(name):
        made.append(name)
        return len(made)

    returned = in_rounds({name: lambda n=name: call(n) for name in "abcd"}, 6)
    rounds = [made[start : start + 4] for start in range(0, 24, 4)]
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert [order[::-1] for order in rounds[::2]] == rounds[1::2]
    assert len({tuple(order) for order in rounds[::2]}) > 1
    for name in "abcd":
        places = [4 * number + order.index(name) + 1 for number, order in enumerate(rounds)]
        assert returned[name] == places

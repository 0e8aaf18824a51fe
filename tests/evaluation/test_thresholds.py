import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest, quantile_test

from memattn.evaluation.thresholds import (
    false_positive_interval,
    fewest_samples,
    fewest_samples_for_upper_end,
    flagged_by_the_others,
    order_statistic,
    share_interval,
    threshold_interval,
)


@pytest.mark.parametrize(
    ("samples", "rate", "expected"),
    [(19, 0.05, 18), (39, 0.05, 37), (40, 0.05, 38), (99, 0.01, 98), (99, 0.29, 70)],
)
def test_order_statistic_is_the_conservative_one(samples, rate, expected):
    assert order_statistic(np.arange(float(samples))[::-1], rate) == expected


@pytest.mark.parametrize(
    ("samples", "rate", "interval"),
    [
        (500, 0.01, (489, 499)),  # ranks 490 and 500, counted from 1
        (499, 0.01, (488, 498)),
        (99, 0.01, (95, math.inf)),
        (3, 0.25, (0, math.inf)),
        (1, 0.5, (-math.inf, math.inf)),
    ],
)
def test_interval_of_known_cases(samples, rate, interval):
    assert threshold_interval(np.arange(float(samples)), rate) == interval


@given(
    samples=st.integers(1, 400),
    rate=st.sampled_from([0.01, 0.03, 0.05, 0.1, 0.29, 0.5, 0.9]),
)
@settings(max_examples=40)
def test_interval_is_scipys(samples, rate):
    scores = np.random.default_rng(samples).normal(size=samples)
    expected = quantile_test(scores, p=1 - rate).confidence_interval(0.95)
    low, high = threshold_interval(scores, rate)
    assert low == (-math.inf if math.isnan(expected.low) else expected.low)
    assert high == (math.inf if math.isnan(expected.high) else expected.high)


@given(samples=st.integers(1, 300), rate=st.sampled_from([0.01, 0.05, 0.29, 0.5]))
def test_interval_is_the_narrowest_with_such_tails(samples, rate):
    """Straight from the definition of the ranks l and u, with sums of binomial probabilities."""
    low, high = threshold_interval(np.arange(1.0, samples + 1), rate)
    chances = binom.pmf(np.arange(samples + 1), samples, 1 - rate)
    lower = max(rank for rank in range(samples + 1) if chances[:rank].sum() <= 0.025)
    upper = min(rank for rank in range(samples + 2) if chances[rank:].sum() <= 0.025)
    assert low == (lower if lower else -math.inf)
    assert high == (upper if upper <= samples else math.inf)


def intervals_of(scores, rate):
    """Intervals of many samples [m, n] at once, which all take scores of the same ranks."""
    low, high = threshold_interval(np.arange(float(scores.shape[1])), rate)
    ranked = np.sort(scores, axis=1)
    open_end = np.full(len(scores), math.inf)
    return (
        ranked[:, int(low)] if math.isfinite(low) else -open_end,
        ranked[:, int(high)] if math.isfinite(high) else open_end,
    )


@pytest.mark.parametrize(("samples", "rate"), [(500, 0.01), (99, 0.01), (60, 0.2)])
def test_intervals_cover_as_often_as_they_say(samples, rate):
    scores = np.random.default_rng(0).uniform(size=(2000, samples))  # the quantile is 1 - rate
    low, high = intervals_of(scores, rate)
    assert 0.94 <= np.mean((low <= 1 - rate) & (1 - rate <= high)) <= 0.999
    rank = int(order_statistic(np.arange(float(samples)), rate))
    rates = 1 - np.sort(scores, axis=1)[:, rank]
    low, high = false_positive_interval(samples, rate)
    assert np.mean((low <= rates) & (rates <= high)) == pytest.approx(0.95, abs=0.015)
    assert rates.mean() == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.6])
def test_ties_leave_the_interval_true(rate):
    scores = np.random.default_rng(1).integers(0, 4, size=(1000, 200)).astype(float)
    # The lowest value that is exceeded with probability at most the rate.
    quantile = next(value for value in range(4) if (3 - value) / 4 <= rate)
    low, high = intervals_of(scores, rate)
    assert np.mean((low <= quantile) & (quantile <= high)) >= 0.95


@given(
    rate=st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.29]),
    extra=st.integers(0, 400),
)
def test_the_threshold_lies_in_its_interval(rate, extra):
    scores = np.random.default_rng(extra).normal(size=fewest_samples(rate) + extra)
    low, high = threshold_interval(scores, rate)
    assert low <= order_statistic(scores, rate) <= high


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.1, 0.29, 0.5, 0.9])
def test_an_upper_end_takes_as_many_samples_as_said(rate):
    fewest = fewest_samples_for_upper_end(rate)
    assert threshold_interval(np.arange(float(fewest)), rate)[1] == fewest - 1
    if fewest > 1:
        assert threshold_interval(np.arange(fewest - 1.0), rate)[1] == math.inf


@pytest.mark.parametrize(("rate", "fewest"), [(0.01, 368), (0.05, 72), (0.5, 6)])
def test_fewest_samples_for_an_upper_end(rate, fewest):
    assert fewest_samples_for_upper_end(rate) == fewest


@pytest.mark.parametrize(("rate", "fewest"), [(0.01, 99), (0.05, 19), (0.5, 1), (0.29, 3)])
def test_fewest_samples(rate, fewest):
    assert fewest_samples(rate) == fewest


def test_the_rate_of_the_fewest_samples_has_a_closed_form():
    # Beta(1, n): the chance that none of n uniform numbers lies in the highest x is (1 - x)^n.
    low, high = false_positive_interval(99, 0.01)
    assert low == pytest.approx(1 - 0.975 ** (1 / 99))
    assert high == pytest.approx(1 - 0.025 ** (1 / 99))


@given(
    scores=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    rate=st.sampled_from([0.05, 0.1, 0.29, 0.5, 0.9]),
)
def test_each_sample_meets_the_threshold_of_the_others(scores, rate):
    values = np.array(scores, dtype=np.float64)
    if values.size < fewest_samples(rate):
        return
    above = int((values > order_statistic(values, rate)).sum())
    places = round(np.floor(rate * (values.size + 1) + 1e-9))
    found = flagged_by_the_others(values, rate)
    for place, value in enumerate(values):
        others = np.sort(np.delete(values, place))
        assert found[place] == (places > others.size or value > others[others.size - places])
    assert above <= found.sum() <= places


def test_the_highest_of_99_is_flagged_by_the_others():
    found = flagged_by_the_others(np.arange(99.0), 0.01)
    assert np.flatnonzero(found).tolist() == [98]


@given(samples=st.integers(1, 600), share=st.floats(0, 1))
def test_the_interval_of_a_share_is_scipys(samples, share):
    count = round(share * samples)
    expected = binomtest(count, samples).proportion_ci(0.95, method="exact")
    assert share_interval(count, samples) == pytest.approx((expected.low, expected.high))

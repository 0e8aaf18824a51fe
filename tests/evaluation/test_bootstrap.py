import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from memattn.evaluation import bootstrap as module
from memattn.evaluation.bootstrap import Estimate, bootstrap


def mean(values):
    return values.mean(axis=-1)


def difference(one, other):
    return one.mean(axis=-1) - other.mean(axis=-1)


def normal(size, seed=0):
    return np.random.default_rng(seed).normal(size=size)


def test_value_is_the_statistic_of_the_groups_themselves():
    assert bootstrap(mean, np.array([1.0, 2.0, 6.0]), resamples=1).value == 3
    assert bootstrap(difference, np.array([5.0]), np.array([1.0, 3.0]), resamples=1).value == 3


def test_interval_is_scipys():
    groups = normal(40), normal(90, seed=1) * 3
    expected = scipy_bootstrap(
        groups, lambda a, b, axis: difference(a, b), method="percentile", n_resamples=20000, rng=0
    ).confidence_interval
    found = bootstrap(difference, *groups, resamples=20000)
    assert found.low == pytest.approx(expected.low, abs=0.03)
    assert found.high == pytest.approx(expected.high, abs=0.03)


def test_groups_of_equal_size_are_drawn_independently():
    group = normal(50)
    found = bootstrap(difference, group, group)
    assert found.low < -0.2
    assert found.high > 0.2


def test_each_group_keeps_its_size():
    sizes = []
    bootstrap(
        lambda a, b: sizes.append((a.shape, b.shape)) or difference(a, b), *map(normal, (3, 7))
    )
    assert sizes == [((2000, 3), (2000, 7)), ((3,), (7,))]


def test_equal_values_give_an_interval_of_no_width():
    assert bootstrap(mean, np.full(9, 2.5)) == Estimate(2.5, 2.5, 2.5)


def test_one_value_gives_an_interval_of_no_width():
    assert bootstrap(mean, np.array([4.0])) == Estimate(4.0, 4.0, 4.0)


def test_more_confidence_gives_a_wider_interval():
    narrow, wide = (bootstrap(mean, normal(30), confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_same_seed_gives_the_same_interval_and_another_another():
    group = normal(20)
    assert bootstrap(mean, group) == bootstrap(mean, group)
    assert bootstrap(mean, group, seed=1) != bootstrap(mean, group)


@pytest.mark.parametrize("block", [1, 60, 777])
def test_interval_does_not_depend_on_how_many_values_are_drawn_at_a_time(monkeypatch, block):
    groups = normal(11), normal(30, seed=1)
    expected = bootstrap(difference, *groups, resamples=100)
    largest = []

    def watched(one, other):
        largest.append(one.size + other.size)
        return difference(one, other)

    monkeypatch.setattr(module, "_BLOCK", block)
    assert bootstrap(watched, *groups, resamples=100) == expected
    assert max(largest) <= max(block, 41)


@pytest.mark.parametrize(
    ("groups", "options", "sentence"),
    [
        ([], {}, "got no groups, expected at least one"),
        ([[1.0], []], {}, r"got a group of shape \(0,\), expected a 1-D array with at least one"),
        ([[[1.0]]], {}, r"got a group of shape \(1, 1\), expected a 1-D array"),
        ([1.0], {}, r"got a group of shape \(\), expected a 1-D array"),
        ([[1.0, np.nan]], {}, "got a group with values that are not finite"),
        ([[np.inf]], {}, "got a group with values that are not finite"),
        ([[1.0]], {"confidence": 0.0}, "got confidence=0.0, expected a number between 0 and 1"),
        ([[1.0]], {"confidence": np.nan}, "got confidence=nan, expected a number between 0 and 1"),
        ([[1.0]], {"resamples": 0}, "got resamples=0, expected at least 1"),
    ],
)
def test_what_cannot_be_resampled_is_refused(groups, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        bootstrap(mean, *map(np.array, groups), **options)

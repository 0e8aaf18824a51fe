import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from memattn.evaluation.roc import auroc

# Few distinct values, so that ties are common.
scores = st.lists(st.integers(-5, 5), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float32)
)


@pytest.mark.parametrize(
    ("memorized", "ordinary", "value"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0], [1.0, 2.0], 0.0),
        ([1.0, 1.0], [1.0, 1.0, 1.0], 0.5),
        ([1.0, 3.0], [0.0, 2.0], 0.75),
        ([1.0, 2.0], [1.0, 0.0], 0.875),
    ],
)
def test_value_counts_pairs_and_half_the_ties(memorized, ordinary, value):
    result = auroc(torch.tensor(memorized), torch.tensor(ordinary), resamples=1)
    assert result.value == value
    assert (result.memorized, result.ordinary) == (len(memorized), len(ordinary))


@given(memorized=scores, ordinary=scores)
def test_value_is_scikit_learns(memorized, ordinary):
    labels = np.r_[np.ones(memorized.numel()), np.zeros(ordinary.numel())]
    expected = roc_auc_score(labels, torch.cat([memorized, ordinary]).numpy())
    assert auroc(memorized, ordinary, resamples=1).value == pytest.approx(expected)


@given(memorized=scores, ordinary=scores)
def test_swapping_the_groups_mirrors_the_value(memorized, ordinary):
    forward = auroc(memorized, ordinary, resamples=1).value
    assert auroc(ordinary, memorized, resamples=1).value == pytest.approx(1 - forward)


@given(memorized=scores, ordinary=scores)
@settings(max_examples=30)
def test_monotone_transform_changes_nothing(memorized, ordinary):
    before = auroc(memorized, ordinary, resamples=20)
    assert auroc(memorized.exp() * 3 - 1, ordinary.exp() * 3 - 1, resamples=20) == before


@given(memorized=scores, ordinary=scores)
@settings(max_examples=30)
def test_interval_lies_in_order_between_zero_and_one(memorized, ordinary):
    result = auroc(memorized, ordinary, resamples=50)
    assert 0 <= result.low <= result.high <= 1


def test_interval_is_that_of_a_slow_bootstrap():
    generator = torch.Generator().manual_seed(3)
    memorized = torch.randn(24, generator=generator) + 0.8
    ordinary = torch.randn(90, generator=generator)
    result = auroc(memorized, ordinary)
    rng = np.random.default_rng(99)
    labels = np.r_[np.ones(24), np.zeros(90)]
    slow = [
        roc_auc_score(
            labels,
            np.r_[
                rng.choice(memorized.numpy(), size=24),
                rng.choice(ordinary.numpy(), size=90),
            ],
        )
        for _ in range(400)
    ]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert result.low == pytest.approx(low, abs=0.03)
    assert result.high == pytest.approx(high, abs=0.03)


def test_wider_confidence_gives_a_wider_interval():
    memorized, ordinary = torch.arange(20.0) + 3, torch.arange(30.0)
    narrow = auroc(memorized, ordinary, confidence=0.5)
    wide = auroc(memorized, ordinary, confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high


def test_interval_covers_chance_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(100):
        result = auroc(
            torch.randn(30, generator=generator),
            torch.randn(100, generator=generator),
            confidence=0.9,
            resamples=150,
        )
        covered += result.low <= 0.5 <= result.high
    assert 0.8 <= covered / 100 <= 0.98


def test_same_seed_gives_the_same_interval_and_another_another():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(20, generator=generator), torch.randn(40, generator=generator)
    assert auroc(*groups) == auroc(*groups)
    assert auroc(*groups, seed=1) != auroc(*groups)


def test_two_thousand_resamples_of_the_testbed_are_quick():
    generator = torch.Generator().manual_seed(0)
    groups = torch.randn(48, generator=generator), torch.randn(500, generator=generator)
    start = time.process_time()
    auroc(*groups)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("memorized", "ordinary", "sentence"),
    [
        ([], [1.0], r"got memorized scores of shape \(0,\), expected a 1-D"),
        ([1.0], [[1.0]], r"got ordinary scores of shape \(1, 1\), expected a 1-D"),
        ([1.0], [float("nan"), 1.0], "got 1 ordinary scores that are not finite"),
        ([float("inf")], [1.0], "got 1 memorized scores that are not finite"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(memorized, ordinary, sentence):
    with pytest.raises(ValueError, match=sentence):
        auroc(torch.tensor(memorized), torch.tensor(ordinary))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"confidence": 1.0}, "got confidence=1.0, expected a number between 0 and 1"),
        ({"resamples": 0}, "got resamples=0, expected at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        auroc(torch.ones(2), torch.zeros(2), **options)

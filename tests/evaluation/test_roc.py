import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as scikit_roc_curve

from memattn.evaluation.roc import FEWEST_ORDINARY, auroc, roc_curve, tpr_at_fpr

# Few distinct values, so that ties are common.
scores = st.lists(st.integers(-5, 5), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float32)
)


def both(memorized, ordinary):
    """Labels and scores as scikit-learn takes them."""
    labels = np.r_[np.ones(memorized.numel()), np.zeros(ordinary.numel())]
    return labels, torch.cat([memorized, ordinary]).numpy()


def drawn(seed, memorized, ordinary, distinct):
    """Scores of two groups with few or many distinct values."""
    rng = np.random.default_rng(seed)
    return (
        torch.tensor(rng.integers(distinct // 3, distinct, memorized), dtype=torch.float32),
        torch.tensor(rng.integers(0, distinct, ordinary), dtype=torch.float32),
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
    expected = roc_auc_score(*both(memorized, ordinary))
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


@pytest.mark.parametrize("shift", [0.0, 1.2])
def test_interval_covers_the_true_area_as_often_as_it_says(shift):
    generator = torch.Generator().manual_seed(0)
    truth = norm.cdf(shift / 2**0.5)  # of two normal distributions so far apart
    covered = 0
    for _ in range(200):
        memorized = torch.randn(40, generator=generator) + shift
        result = auroc(memorized, torch.randn(60, generator=generator), resamples=200)
        covered += result.low <= truth <= result.high
    assert 0.90 <= covered / 200 <= 0.99


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


@pytest.mark.parametrize("measure", [roc_curve, tpr_at_fpr])
def test_curve_and_rate_refuse_scores_that_cannot_be_ranked(measure):
    with pytest.raises(ValueError, match="got 1 memorized scores that are not finite"):
        measure(torch.tensor([float("nan")]), torch.zeros(300))
    with pytest.raises(ValueError, match=r"got ordinary scores of shape \(0,\), expected a 1-D"):
        measure(torch.ones(3), torch.zeros(0))


def test_curve_of_a_case_computed_by_hand():
    curve = roc_curve(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    assert curve.thresholds.tolist() == [2, 1, 0, -np.inf]
    assert curve.true_positive_rates.tolist() == [0, 0.5, 1, 1]
    assert curve.false_positive_rates.tolist() == [0, 0, 0.25, 1]


@given(memorized=scores, ordinary=scores)
def test_curve_is_scikit_learns(memorized, ordinary):
    curve = roc_curve(memorized, ordinary)
    expected = scikit_roc_curve(*both(memorized, ordinary), drop_intermediate=False)
    np.testing.assert_allclose(curve.false_positive_rates, expected[0])
    np.testing.assert_allclose(curve.true_positive_rates, expected[1])
    # scikit-learn flags what is at its threshold, so the same point has the next score.
    np.testing.assert_array_equal(curve.thresholds[:-1], expected[2][1:])


@given(memorized=scores, ordinary=scores)
def test_curve_rises_from_nothing_to_everything_over_the_area(memorized, ordinary):
    curve = roc_curve(memorized, ordinary)
    rates = curve.false_positive_rates, curve.true_positive_rates
    for rate in rates:
        assert (rate[0], rate[-1]) == (0, 1)
        assert (np.diff(rate) >= 0).all()
    assert len(curve.thresholds) == len(rates[0]) == len(rates[1])
    assert np.trapezoid(rates[1], rates[0]) == pytest.approx(
        auroc(memorized, ordinary, resamples=1).value
    )


@given(memorized=scores, ordinary=scores)
def test_a_point_of_the_curve_flags_what_lies_above_its_threshold(memorized, ordinary):
    curve = roc_curve(memorized, ordinary)
    for i, threshold in enumerate(curve.thresholds):
        assert curve.true_positive_rates[i] == np.mean(memorized.numpy() > threshold)
        assert curve.false_positive_rates[i] == np.mean(ordinary.numpy() > threshold)


@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 40), st.integers(FEWEST_ORDINARY, 700)),
    distinct=st.sampled_from([3, 30, 10**6]),
    rate=st.sampled_from([0.001, 0.01, 0.05, 0.29, 0.999]),
)
def test_rate_is_that_of_scikit_learns_last_point_below(seed, sizes, distinct, rate):
    memorized, ordinary = drawn(seed, *sizes, distinct)
    false, true, _ = scikit_roc_curve(*both(memorized, ordinary), drop_intermediate=False)
    expected = true[np.flatnonzero(false < rate)[-1]]
    assert tpr_at_fpr(memorized, ordinary, rate, resamples=1).value == pytest.approx(expected)


@pytest.mark.parametrize(("ordinary", "flagged"), [(200, 1), (201, 2), (300, 2), (301, 3)])
def test_fewer_ordinary_scores_than_the_rate_are_flagged_not_as_many(ordinary, flagged):
    found = tpr_at_fpr(torch.arange(1000.0), torch.arange(float(ordinary)), resamples=1)
    assert found.value == pytest.approx((1000 - ordinary + flagged) / 1000)


def test_ties_at_the_threshold_are_not_flagged():
    ordinary = torch.zeros(200)
    assert tpr_at_fpr(torch.zeros(5), ordinary).value == 0
    assert tpr_at_fpr(torch.tensor([0.0, 1.0]), ordinary).value == 0.5
    ordinary[:2] = 1  # two of 200 tie above: both would be flagged, so neither is
    assert tpr_at_fpr(torch.tensor([1.0, 2.0]), ordinary).value == 0.5


def test_interval_of_the_rate_is_that_of_scikit_learn_on_every_resample():
    memorized, ordinary = drawn(5, 60, 300, 1000)
    found = tpr_at_fpr(memorized, ordinary, 0.05, resamples=100)
    generators = np.random.default_rng(0).spawn(2)
    draws = [g.integers(n, size=(100, n)) for g, n in zip(generators, (60, 300), strict=True)]
    rates = []
    for one, other in zip(*draws, strict=True):
        false, true, _ = scikit_roc_curve(
            *both(memorized[one], ordinary[other]), drop_intermediate=False
        )
        rates.append(true[np.flatnonzero(false < 0.05)[-1]])
    low, high = np.quantile(rates, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low < found.value < found.high


def test_a_rate_from_too_few_ordinary_scores_is_refused():
    sentence = r"got 199 ordinary scores, expected at least 200 for .* false-positive rate of 0.01"
    with pytest.raises(ValueError, match=sentence):
        tpr_at_fpr(torch.ones(300), torch.zeros(199))


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=r"got rate=.*, expected a number between 0 and 1"):
        tpr_at_fpr(torch.ones(3), torch.zeros(300), rate)

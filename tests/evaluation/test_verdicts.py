import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score as scikit_f1_score

from memattn.evaluation.verdicts import f1_score

scores = st.lists(st.integers(-3, 3), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float32)
)


def scikit(memorized, ordinary, threshold):
    truth = np.r_[np.ones(len(memorized)), np.zeros(len(ordinary))]
    return scikit_f1_score(truth, np.r_[memorized, ordinary] > threshold, zero_division=0)


@pytest.mark.parametrize(
    ("threshold", "value"),
    [(0.5, 1.0), (0.0, 1.0), (-0.5, 2 * 2 / (2 * 2 + 3)), (1.0, 2 / 3), (2.0, 0.0)],
)
def test_value_of_a_case_computed_by_hand(threshold, value):
    memorized, ordinary = torch.tensor([1.0, 2.0]), torch.zeros(3)
    assert f1_score(memorized, ordinary, threshold).value == pytest.approx(value)


@given(memorized=scores, ordinary=scores, threshold=st.integers(-4, 4))
def test_value_is_scikit_learns(memorized, ordinary, threshold):
    found = f1_score(memorized, ordinary, threshold, resamples=1)
    assert found.value == pytest.approx(scikit(memorized.numpy(), ordinary.numpy(), threshold))


@given(memorized=scores, ordinary=scores, threshold=st.integers(-4, 4))
@settings(max_examples=30)
def test_interval_lies_in_order_between_zero_and_one(memorized, ordinary, threshold):
    found = f1_score(memorized, ordinary, threshold, resamples=50)
    assert 0 <= found.low <= found.high <= 1


def test_interval_is_that_of_a_slow_bootstrap():
    generator = torch.Generator().manual_seed(2)
    memorized = (torch.randn(40, generator=generator) + 1.5).numpy()
    ordinary = torch.randn(150, generator=generator).numpy()
    found = f1_score(torch.tensor(memorized), torch.tensor(ordinary), 1.0)
    rng = np.random.default_rng(7)
    slow = [
        scikit(rng.choice(memorized, size=40), rng.choice(ordinary, size=150), 1.0)
        for _ in range(200)
    ]
    low, high = np.quantile(slow, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.03)
    assert found.high == pytest.approx(high, abs=0.03)


def test_a_threshold_between_two_float32_scores_tells_them_apart():
    below = torch.tensor([0.1])
    above = torch.nextafter(below, torch.tensor([1.0]))
    assert f1_score(above, below, float(below)).value == 1


@pytest.mark.parametrize(
    ("memorized", "ordinary", "threshold", "sentence"),
    [
        ([], [1.0], 0.0, r"got memorized scores of shape \(0,\), expected a 1-D"),
        ([1.0], [[1.0]], 0.0, r"got ordinary scores of shape \(1, 1\), expected a 1-D"),
        ([1.0], [float("nan")], 0.0, "got 1 ordinary scores that are not finite"),
        ([1.0], [1.0], float("nan"), "got threshold=nan, expected a number"),
    ],
)
def test_what_gives_no_verdicts_is_refused(memorized, ordinary, threshold, sentence):
    with pytest.raises(ValueError, match=sentence):
        f1_score(torch.tensor(memorized), torch.tensor(ordinary), threshold)

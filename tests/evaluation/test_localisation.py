import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score, jaccard_score
from torch.nn import functional as F

from memattn.evaluation.localisation import localisation


def half(samples=3, size=4):
    """Truth that is the left half of every picture."""
    truth = np.zeros((samples, size, size), dtype=bool)
    truth[:, :, : size // 2] = True
    return truth


def drawn(seed, samples=12, coarse=5, fine=15, noise=1.0):
    """Random regions that are part of the picture, and noisy masks of them."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((samples, fine, fine), dtype=bool)
    for region in truth:
        row, column = rng.integers(0, fine // 2, size=2)
        height, width = rng.integers(4, fine // 2, size=2)
        region[row : row + height, column : column + width] = True
    shares = F.adaptive_avg_pool2d(torch.from_numpy(truth).float(), coarse)
    return shares + noise * torch.from_numpy(rng.normal(size=shares.shape)).float(), truth


def test_masks_that_are_the_truth_are_perfect_at_both_resolutions():
    found = localisation(torch.from_numpy(half()).float(), half())
    for figure in (found.average_precision, found.iou):
        assert (figure.value, figure.low, figure.high) == (1, 1, 1)
    assert found.native_average_precision == found.average_precision
    assert found.native_iou == found.iou
    assert found.samples == 3


def test_masks_that_are_the_opposite_are_wrong_everywhere():
    found = localisation(torch.from_numpy(~half()).float(), half())
    assert found.iou.value == 0
    assert found.average_precision.value == 0.5  # only when all pixels are taken


def test_case_computed_by_hand():
    mask = torch.tensor([[[4.0, 1.0], [3.0, 0.0]]])
    truth = np.array([[[True, True], [False, False]]])
    found = localisation(mask, truth)
    # 4 is inside, 3 is not, 1 is the third: 1/2 * 1/1 + 1/2 * 2/3.
    assert found.average_precision.value == pytest.approx(5 / 6)
    # Above the mean of 2: the pixels of 4 and 3.
    assert found.iou.value == pytest.approx(1 / 3)


@given(
    mask=hnp.arrays(np.float32, (5, 4), elements=st.integers(0, 3).map(float)),
    region=hnp.arrays(bool, (5, 4)).filter(lambda region: region.any() and not region.all()),
)
def test_figures_are_scikit_learns(mask, region):
    found = localisation(torch.from_numpy(mask)[None], region[None])
    expected = average_precision_score(region.ravel(), mask.ravel())
    assert found.native_average_precision.value == pytest.approx(expected)
    above = mask.astype(np.float64) > mask.astype(np.float64).mean()
    assert found.native_iou.value == pytest.approx(jaccard_score(region.ravel(), above.ravel()))


def test_figures_are_means_over_samples():
    masks, truth = drawn(0)
    whole = localisation(masks, truth)
    parts = [localisation(masks[i : i + 1], truth[i : i + 1]) for i in range(len(truth))]
    for name in ("average_precision", "iou", "native_average_precision", "native_iou"):
        each = np.array([getattr(part, name).value for part in parts])
        figure = getattr(whole, name)
        assert figure.value == pytest.approx(each.mean())
        draws = np.random.default_rng(5).choice(each, size=(2000, len(each))).mean(axis=1)
        assert figure.low == pytest.approx(np.quantile(draws, 0.025), abs=0.02)
        assert figure.high == pytest.approx(np.quantile(draws, 0.975), abs=0.02)


def test_fine_figures_are_those_of_the_enlarged_mask():
    masks, truth = drawn(1)
    enlarged = F.interpolate(masks[:, None].double(), size=(15, 15), mode="bilinear")[:, 0]
    found, expected = localisation(masks, truth), localisation(enlarged.float(), truth)
    assert found.average_precision == expected.native_average_precision
    assert found.iou == expected.native_iou
    assert found.average_precision != found.native_average_precision


def test_native_truth_is_what_covers_more_than_half_of_a_pixel():
    truth = np.zeros((1, 4, 4), dtype=bool)
    truth[0, :2, :2] = [[True, True], [True, False]]  # three quarters of the first
    truth[0, :2, 2:] = [[True, True], [False, False]]  # half of the second
    found = localisation(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), truth)
    assert found.native_average_precision.value == found.native_iou.value == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.3, 1 / 3])
def test_a_flat_mask_ranks_nothing_and_marks_no_region(value, dtype):
    masks, truth = drawn(2, coarse=7, fine=21)
    found = localisation(torch.full_like(masks, value, dtype=dtype), truth)
    assert found.average_precision.value == pytest.approx(found.chance_average_precision)
    assert found.iou.value == found.native_iou.value == 0


def test_chance_precision_is_the_mean_share_of_the_truth_and_the_whole_pictures_iou():
    masks, truth = drawn(3)
    found = localisation(masks, truth)
    whole_picture = [jaccard_score(r.ravel(), np.ones(r.size, dtype=bool)) for r in truth]
    assert found.chance_average_precision == pytest.approx(np.mean(whole_picture))
    assert found.chance_average_precision == pytest.approx(truth.mean())


def test_chance_iou_computed_by_hand():
    masks = torch.tensor([[[4.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [1.0, 0.0]]])
    truth = np.array([[[False, True], [False, False]], [[True, True], [False, False]]])
    # A quarter of one quarter: 1/16 in both, 7/16 in either. Three quarters of one half: 3/8, 7/8.
    assert localisation(masks, truth).chance_iou == pytest.approx((1 / 7 + 3 / 7) / 2)


def test_masks_of_noise_are_at_chance_iou():
    rng = np.random.default_rng(7)
    masks = torch.from_numpy(rng.random((400, 8, 8))).float()
    truth = np.zeros((400, 64, 64), dtype=bool)
    truth[:, 10:50, 5:60] = True
    found = localisation(masks, truth)
    assert found.chance_iou == pytest.approx(found.iou.value, abs=0.01)
    assert found.chance_iou < found.chance_average_precision - 0.1


def test_masks_of_noise_are_at_chance_and_masks_with_a_trace_above():
    noise, truth = drawn(4, samples=200, coarse=15, noise=1.0)
    shares = torch.from_numpy(truth).float()
    # The ranking of few pixels by noise is a little above the share, by about one part in their
    # number.
    nothing = localisation(noise - shares, truth)
    assert nothing.average_precision.value == pytest.approx(
        nothing.chance_average_precision, abs=0.03
    )
    assert localisation(noise, truth).average_precision.low > nothing.average_precision.high


@given(factor=st.sampled_from([1e-6, 0.5, 8.0, 1024.0]))
def test_scaling_a_mask_changes_nothing(factor):
    masks, truth = drawn(6, samples=3)
    before, after = localisation(masks, truth), localisation(masks * factor, truth)
    assert after.iou.value == pytest.approx(before.iou.value, abs=0.01)
    assert after.average_precision.value == pytest.approx(before.average_precision.value, abs=1e-3)


def region(rows):
    """Truth of two samples [2, 4, 4]; the second is covered in so many rows."""
    truth = half(samples=2)
    truth[1] = False
    truth[1, :rows] = True
    return truth


@pytest.mark.parametrize(
    ("masks", "truth", "sentence"),
    [
        (torch.rand(4, 4), half(), r"got masks of shape \(4, 4\) .*expected \[n, h, w\]"),
        (torch.rand(0, 4, 4), half(0), r"got masks of shape \(0, 4, 4\)"),
        (torch.ones(3, 4, 4, dtype=torch.int64), half(), "dtype torch.int64, expected .*floating"),
        (torch.rand(2, 4, 4), half(), r"got truth of shape \(3, 4, 4\) .*expected .* for 2 masks"),
        (torch.rand(3, 4, 4), half()[0], r"got truth of shape \(4, 4\)"),
        (torch.rand(3, 4, 4), half().astype(float), "dtype float64, expected .* of bool"),
        (torch.rand(3, 4, 8), half(), "got truth of 4 x 4 pixels, expected at least the 4 x 8"),
        (torch.rand(2, 4, 4), region(0), r"nowhere at its own resolution in samples \[1\]"),
        (torch.rand(2, 4, 4), region(4), r"everywhere at its own resolution in samples \[1\]"),
        (torch.rand(2, 2, 2), region(1), r"nowhere at the masks' resolution in samples \[1\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(masks, truth, sentence):
    with pytest.raises(ValueError, match=sentence):
        localisation(masks, truth)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_masks_that_are_not_finite_are_refused(value):
    masks = torch.rand(3, 4, 4)
    masks[1, 2, 3] = value
    with pytest.raises(ValueError, match=r"got masks that are not finite in samples \[1\]"):
        localisation(masks, half())

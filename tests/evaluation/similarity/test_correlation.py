import numpy as np
import pytest
from numpy.random import default_rng

from memattn.evaluation.similarity import Correlation, correlation


def pictures(count, size=64, seed=0):
    return default_rng(seed).integers(60, 190, (count, size, size, 3), np.uint8)


def expected(first, second):
    """numpy's own coefficient, channel by channel."""
    channels = [np.corrcoef(first[..., c].ravel(), second[..., c].ravel())[0, 1] for c in range(3)]
    return np.mean(channels)


def test_correlation_is_the_mean_of_the_channels_coefficients():
    first, second = pictures(2)
    mixed = first // 2 + second // 2
    assert correlation.correlation(first, mixed) == pytest.approx(expected(first, mixed))
    assert 0.5 < expected(first, mixed) < 0.9


def test_correlation_looks_inside_the_mask_only():
    first, second = pictures(2)
    mask = np.zeros((64, 64), bool)
    mask[:, 40:] = True
    mixed = np.where(mask[..., None], first, second)
    assert correlation.correlation(first, mixed, mask) == pytest.approx(1)
    outside = expected(first[:, :40], mixed[:, :40])
    assert correlation.correlation(first, mixed, ~mask) == pytest.approx(outside)


def test_correlation_broadcasts():
    several = pictures(4)
    assert correlation.correlation(several[:, None], several[None]).shape == (4, 4)


def test_every_image_meets_every_reference(monkeypatch):
    """In blocks that do not fit either side evenly."""
    monkeypatch.setattr(correlation, "_BLOCK", 2)
    images, references = pictures(5), pictures(3, seed=1)
    references[1] = 255 - images[4]
    found = Correlation().similarities(images, references)
    wanted = [[expected(image, reference) for reference in references] for image in images]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert found[4, 1] == pytest.approx(-1)


def test_tint_brightness_and_contrast_do_not_count():
    image = pictures(1)[0]
    tinted = np.rint(image * [0.8, 1.1, 1.3] + [9, -9, 3]).astype(np.uint8)
    assert Correlation().similarities([image], [tinted])[0, 0] > 0.999


def test_a_picture_of_one_colour_correlates_with_nothing():
    flat = np.full((64, 64, 3), 7, np.uint8)
    found = Correlation().similarities([flat, flat + 3], [flat, pictures(1)[0]])
    assert (found == 0).all()


def test_a_larger_copy_is_a_copy():
    """A smooth picture at four times the width and twice the height."""
    wave = np.sin(np.linspace(0, 6, 64))
    small = (120 + 100 * np.stack([np.outer(wave, wave)] * 3, axis=-1)).astype(np.uint8)
    large = small.repeat(2, axis=0).repeat(4, axis=1)
    assert Correlation().similarities([large], [small])[0, 0] > 0.995

import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image, ImageFilter

from memattn.testbed.scenes import draw_scene, inside_mask, to_bytes
from memattn.testbed.truth import copy_thresholds, distance


def pictures(count):
    return default_rng(0).integers(60, 190, (count, 64, 64, 3), np.uint8)


def test_distance_counts_structure_and_not_tint():
    first, second = pictures(2)
    assert distance(first, first) == pytest.approx(0, abs=1e-9)
    assert distance(first, 255 - first) == pytest.approx(2, abs=1e-9)
    assert distance(first, second) == pytest.approx(1, abs=0.05)
    tinted = np.rint(first * [0.8, 1.1, 1.3] + [9, -9, 3]).astype(np.uint8)
    assert distance(first, tinted) < 0.001


def test_distance_is_one_minus_the_mean_channel_correlation():
    first, second = pictures(2)
    second = first // 2 + second // 2
    channels = [np.corrcoef(first[..., c].ravel(), second[..., c].ravel())[0, 1] for c in range(3)]
    assert distance(first, second) == pytest.approx(1 - np.mean(channels))


def test_distance_of_a_flat_picture_is_one():
    assert distance(np.full((64, 64, 3), 7, np.uint8), pictures(1)[0]) == 1


def test_distance_looks_inside_the_mask_only():
    first, second = pictures(2)
    mask = np.zeros((64, 64), bool)
    mask[:, 32:] = True
    mixed = np.where(mask[..., None], first, second)
    assert distance(first, mixed, mask) == pytest.approx(0, abs=1e-9)
    assert distance(first, mixed, ~mask) == pytest.approx(1, abs=0.05)
    assert distance(first, mixed) == pytest.approx(0.5, abs=0.05)


def test_distance_broadcasts_over_pictures():
    several = pictures(4)
    assert distance(several, several[0]).shape == (4,)
    assert distance(several, several[0])[0] == pytest.approx(0, abs=1e-9)


@pytest.fixture(scope="module")
def thresholds():
    return copy_thresholds(pairs=400)


def test_thresholds_are_reproducible(thresholds):
    assert thresholds == copy_thresholds(pairs=400)
    assert 0.2 < thresholds.inside < 0.6
    assert 0.2 < thresholds.whole < 0.6


@pytest.mark.parametrize("radius", [0, 4, 8])
def test_unrelated_pictures_are_rarely_copies_however_blurred(radius, thresholds):
    scenes = [draw_scene(default_rng(seed)) for seed in range(60)]
    targets = [(to_bytes(scene), inside_mask(scene)) for scene in scenes]
    whole = inside = 0
    for seed in range(1000, 1020):
        picture = Image.fromarray(to_bytes(draw_scene(default_rng(seed))))
        image = np.asarray(picture.filter(ImageFilter.GaussianBlur(radius)))
        whole += sum(distance(image, target) < thresholds.whole for target, _ in targets)
        inside += sum(distance(image, t, mask) < thresholds.inside for t, mask in targets)
    assert whole <= 6  # of 1200
    assert inside <= 6


@pytest.mark.parametrize("radius", [0, 1, 2])
def test_a_blurred_and_bleached_copy_is_still_a_copy(radius, thresholds):
    for seed in range(40):
        training = to_bytes(draw_scene(default_rng(seed)))
        picture = Image.fromarray(training).filter(ImageFilter.GaussianBlur(radius))
        bleached = np.clip(np.asarray(picture) * 1.4 + 10, 0, 255).astype(np.uint8)
        assert distance(bleached, training) < thresholds.whole

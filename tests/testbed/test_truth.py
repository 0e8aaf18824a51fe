import numpy as np
import pytest

from memattn.testbed.truth import copy_thresholds, distance


def test_distance_of_black_and_white_is_one():
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    assert distance(black, white) == 1
    assert distance(black, black) == 0


def test_distance_looks_inside_the_mask_only():
    first, second = np.zeros((2, 64, 64, 3), np.uint8)
    second[:, :32] = 255
    mask = np.zeros((64, 64), bool)
    mask[:, 32:] = True
    assert distance(first, second, mask) == 0
    assert distance(first, second, ~mask) == 1
    assert distance(first, second) == pytest.approx(0.5**0.5)


def test_distance_broadcasts_over_pictures():
    pictures = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    assert distance(pictures, pictures[0]).shape == (4,)
    assert distance(pictures, pictures[0])[0] == 0


def test_thresholds_are_reproducible_and_far_from_zero():
    first, second = copy_thresholds(pairs=50), copy_thresholds(pairs=50)
    assert first == second
    assert 0.1 < first.whole < 0.5
    assert 0.05 < first.inside < 0.5

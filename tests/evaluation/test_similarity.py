import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from memattn.evaluation.similarity import nearest, rmse


def flat(*levels):
    """Grey images of 4 by 6 pixels."""
    return np.stack([np.full((4, 6, 3), level, dtype=np.uint8) for level in levels])


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)


def test_distance_of_grey_images_is_their_difference_in_unit_pixels():
    distances = rmse(flat(0, 51), flat(0, 255, 102))
    torch.testing.assert_close(distances, torch.tensor([[0, 1, 0.4], [0.2, 0.8, 0.2]]))


def test_distance_is_the_root_of_the_mean_square():
    image = flat(0)
    image[0, :2] = 255
    assert rmse(image, flat(0)).item() == pytest.approx(0.5**0.5)


def test_equal_images_are_exactly_zero_apart():
    images = noise(30)  # above 25 rows torch multiplies matrices unless told not to
    assert rmse(images, images).diagonal().tolist() == [0] * 30


def test_mask_limits_the_pixels_that_count():
    image = flat(0)
    image[0, :, :3] = 255
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, 3:] = True
    assert rmse(image, flat(0), mask).item() == 0
    assert rmse(image, flat(0), ~mask).item() == 1


@given(seed=st.integers(0, 99))
def test_distance_is_symmetric_and_agrees_with_numpy(seed):
    left, right = noise(2, seed), noise(3, seed + 100)
    distances = rmse(left, right)
    torch.testing.assert_close(distances, rmse(right, left).T)
    difference = left[:, None].astype(float) - right[None].astype(float)
    expected = np.sqrt(((difference / 255) ** 2).mean(axis=(2, 3, 4)))
    np.testing.assert_allclose(distances.numpy(), expected, rtol=1e-5)


def test_all_forms_of_one_image_are_alike():
    pixels = noise(2)
    forms = [
        [Image.fromarray(image) for image in pixels],
        list(pixels),
        torch.from_numpy(pixels),
        torch.from_numpy(pixels) / 255,
    ]
    for form in forms:
        assert torch.equal(rmse(form, pixels), rmse(pixels, pixels))


def test_nearest_finds_the_training_image():
    training = noise(6)
    found = nearest(training[[4, 1]], training)
    assert found.indices.tolist() == [4, 1]
    assert found.distances.tolist() == [0, 0]


def test_nearest_of_equals_is_the_first():
    assert nearest(flat(10), flat(20, 0, 20)).indices.tolist() == [0]


@pytest.mark.parametrize(
    ("images", "training", "sentence"),
    [
        (
            flat(0),
            np.zeros((1, 4, 4, 3), np.uint8),
            r"of \(4, 6, 3\) and training images of \(4, 4",
        ),
        (flat(0)[0], flat(0), r"shape \(4, 6, 3\), expected \[B, height, width, 3\]"),
        (torch.full((1, 4, 6, 3), 1.5), flat(0), r"outside uint8 and floats in \[0, 1\]"),
        (torch.zeros(1, 4, 6, 3, dtype=torch.int64), flat(0), r"got pixels of torch.int64"),
        ([flat(0)[0], np.zeros((2, 2, 3), np.uint8)], flat(0), "expected one shape"),
    ],
)
def test_images_that_do_not_compare_are_refused(images, training, sentence):
    with pytest.raises(ValueError, match=sentence):
        rmse(images, training)


@pytest.mark.parametrize(
    "mask", [np.zeros((4, 6), bool), np.ones((4, 4), bool), np.ones((4, 6), np.uint8)]
)
def test_mask_that_chooses_nothing_usable_is_refused(mask):
    with pytest.raises(ValueError, match=r"got a mask of .* expected bool \(4, 6\)"):
        rmse(flat(0), flat(0), mask)


def test_no_training_images_are_refused():
    with pytest.raises(ValueError, match="got no training images"):
        nearest(flat(0), flat(0)[:0])

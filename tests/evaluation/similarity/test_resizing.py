import numpy as np
import pytest
from numpy.random import default_rng

from memattn.evaluation.similarity.resizing import resize


def picture(height, width):
    return default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_of_the_wanted_size_stays_as_it_is():
    image = picture(64, 64)
    assert np.array_equal(resize([image], 64)[0], image)


def test_pictures_of_different_sizes_come_to_one():
    assert resize([picture(10, 30), picture(80, 64)], 32).shape == (2, 32, 32, 3)


def test_shrinking_averages():
    """Without antialiasing, a fine checkerboard would come out black, white or as a coarser one."""
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    small = resize([np.stack([board] * 3, axis=-1).astype(np.uint8)], 8)
    assert (np.abs(small.astype(int) - 127) < 10).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (picture(8, 8)[..., 0], r"image 1 of shape \(8, 8\) and dtype uint8"),
        (picture(8, 8)[..., :1], r"image 1 of shape \(8, 8, 1\)"),
        (picture(8, 8) / 255, "dtype float64, expected uint8"),
        (picture(0, 8), r"image 1 of shape \(0, 8, 3\)"),
    ],
)
def test_what_is_no_picture_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        resize([picture(8, 8), image], 8)


def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="got no images, expected at least one"):
        resize([], 8)

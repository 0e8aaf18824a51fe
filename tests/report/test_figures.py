import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from memattn.report.figures import data_uri, overlay, png_bytes, reduced


def test_a_data_uri_holds_the_image_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    head, _, body = data_uri(image).partition(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(BytesIO(base64.b64decode(body)))), image)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))]
)
def test_an_image_of_another_kind_is_refused(image):
    with pytest.raises(ValueError, match=r"expected \[height, width, 3\] and uint8"):
        png_bytes(image)


def test_an_overlay_is_grey_where_the_mask_is_lowest_and_amber_where_it_is_highest():
    image = np.full((4, 4, 3), 200, np.uint8)
    drawn = overlay(image, np.array([[0.01, 0.01], [0.01, 0.05]]))
    assert len(set(drawn[0, 0])) == 1
    red, green, blue = (int(value) for value in drawn[3, 3])
    assert red > green > blue
    assert drawn[0, 0].max() < red


def test_a_mask_without_contrast_gives_its_value_and_no_nan():
    image = np.full((2, 2, 3), 100, np.uint8)
    everywhere, nowhere = overlay(image, np.ones((2, 2), bool)), overlay(image, np.zeros((2, 2)))
    assert everywhere[0, 0, 0] > everywhere[0, 0, 2]
    assert nowhere[0, 0, 0] == nowhere[0, 0, 2]


@pytest.mark.parametrize(
    ("size", "expected"), [((64, 64), (64, 64)), ((512, 768), (256, 384)), ((2, 4000), (1, 384))]
)
def test_only_images_wider_than_the_page_are_reduced(size, expected):
    assert reduced(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from memattn.testbed import Entry, Manifest, Recipe
from memattn.testbed.copies import NO_COPY, copied, unrelated_share
from memattn.testbed.scenes import draw_scene, to_bytes
from memattn.testbed.truth import CopyThresholds, distance

rng = default_rng(0)
HALF = np.zeros((64, 64), bool)
HALF[:32] = True
PICTURES = rng.integers(60, 190, (3, 64, 64, 3), np.uint8)
ENTRIES = (
    Entry("whole", "verbatim", "reporting", PICTURES[0], ~HALF | HALF, 0),
    Entry("half", "template", "reporting", PICTURES[1], HALF, 0),
    Entry("once", "seen_once", "reporting", PICTURES[2], None, 0),
    Entry("calm", "ordinary", "reporting"),
    Entry("loud", "ordinary", "reporting"),
)


@pytest.fixture
def manifest():
    return Manifest(ENTRIES, Recipe(), {}, CopyThresholds(whole=0.4, inside=0.2))


def mixed(picture, share):
    """A picture of which a share is noise."""
    noise = default_rng(9).integers(60, 190, picture.shape, np.uint8)
    return np.rint(picture * (1 - share) + noise * share).astype(np.uint8)


def test_whole_picture_must_match_a_verbatim_one(manifest):
    near, far = mixed(PICTURES[0], 0.35), mixed(PICTURES[0], 0.6)
    assert copied(np.stack([near, far]), ["whole"] * 2, manifest, PICTURES).tolist() == [0, NO_COPY]


def test_template_is_judged_inside_its_region_alone(manifest):
    image = PICTURES[1].copy()
    image[32:] = 255
    assert copied(image[None], ["half"], manifest, PICTURES).tolist() == [1]
    assert copied(mixed(image, 0.5)[None], ["half"], manifest, PICTURES).tolist() == [NO_COPY]


def test_a_copy_belongs_to_the_nearest_picture(manifest):
    close = mixed(PICTURES[0], 0.2)
    twin = Entry("twin", "verbatim", "reporting", close, ~HALF | HALF, 0)
    two = replace(manifest, entries=(*ENTRIES[:3], twin))
    targets = np.concatenate([PICTURES, close[None]])
    assert copied(np.stack([close, PICTURES[0]]), ["whole"] * 2, two, targets).tolist() == [3, 0]


def test_another_prompts_picture_must_be_matched_more_closely(manifest):
    strict = replace(manifest, thresholds=CopyThresholds(whole=0.4, inside=0.2, unrelated=0.25))
    near = mixed(PICTURES[0], 0.35)
    assert 0.25 * 0.4 < distance(near, PICTURES[0]) < 0.4
    found = copied(np.stack([near, near, PICTURES[0]]), ["whole", "calm", "calm"], strict, PICTURES)
    assert found.tolist() == [0, NO_COPY, 0]


def test_unrelated_scenes_fall_under_the_share_once_in_a_thousand_times(manifest):
    """Against real scenes, in the numbers of a testbed, and with one that resembles everything."""
    rng = default_rng(3)
    scenes = [draw_scene(rng) for _ in range(12)]
    pictures = np.stack([to_bytes(scene) for scene in scenes])
    everywhere = np.ones((64, 64), bool)
    entries = tuple(
        Entry(str(i), "verbatim", "reporting", picture, everywhere, 0)
        for i, picture in enumerate(pictures)
    )
    many = replace(manifest, entries=entries)
    share = unrelated_share(many, pictures, scenes=200)
    few = unrelated_share(replace(manifest, entries=entries[:3]), pictures[:3], scenes=200)
    assert 0.3 < share <= few <= 1
    assert share == unrelated_share(many, pictures, scenes=200)

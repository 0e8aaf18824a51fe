from dataclasses import replace

import numpy as np
from numpy.random import default_rng

from memattn.testbed import Entry
from memattn.testbed.copies import NO_COPY, copied, unrelated_share
from memattn.testbed.scenes import draw_scene, to_bytes
from memattn.testbed.truth import CopyThresholds, distance
from tests.testbed.small_manifest import ENTRIES, MANIFEST, PICTURES, WHOLE


def mixed(picture, share):
    """A picture of which a share is noise."""
    noise = default_rng(9).integers(60, 190, picture.shape, np.uint8)
    return np.rint(picture * (1 - share) + noise * share).astype(np.uint8)


def test_whole_picture_must_match_a_verbatim_one():
    near, far = mixed(PICTURES[0], 0.35), mixed(PICTURES[0], 0.6)
    assert copied(np.stack([near, far]), ["whole"] * 2, MANIFEST, PICTURES).tolist() == [0, NO_COPY]


def test_template_is_judged_inside_its_region_alone():
    image = PICTURES[1].copy()
    image[32:] = 255
    assert copied(image[None], ["half"], MANIFEST, PICTURES).tolist() == [1]
    assert copied(mixed(image, 0.5)[None], ["half"], MANIFEST, PICTURES).tolist() == [NO_COPY]


def test_a_copy_belongs_to_the_nearest_picture():
    close = mixed(PICTURES[0], 0.2)
    twin = Entry("twin", "verbatim", "reporting", close, WHOLE, 0)
    two = replace(MANIFEST, entries=(*ENTRIES[:3], twin))
    targets = np.concatenate([PICTURES, close[None]])
    assert copied(np.stack([close, PICTURES[0]]), ["whole"] * 2, two, targets).tolist() == [3, 0]


def test_another_prompts_picture_must_be_matched_more_closely():
    strict = replace(MANIFEST, thresholds=CopyThresholds(whole=0.4, inside=0.2, unrelated=0.25))
    near = mixed(PICTURES[0], 0.35)
    assert 0.25 * 0.4 < distance(near, PICTURES[0]) < 0.4
    found = copied(np.stack([near, near, PICTURES[0]]), ["whole", "calm", "calm"], strict, PICTURES)
    assert found.tolist() == [0, NO_COPY, 0]


def test_unrelated_scenes_fall_under_the_share_once_in_a_thousand_times():
    """Against real scenes, in the numbers of a testbed, and with one that resembles everything."""
    rng = default_rng(3)
    scenes = [draw_scene(rng) for _ in range(12)]
    pictures = np.stack([to_bytes(scene) for scene in scenes])
    entries = tuple(
        Entry(str(i), "verbatim", "reporting", picture, WHOLE, 0)
        for i, picture in enumerate(pictures)
    )
    many = replace(MANIFEST, entries=entries)
    share = unrelated_share(many, pictures, scenes=200)
    few = unrelated_share(replace(MANIFEST, entries=entries[:3]), pictures[:3], scenes=200)
    assert 0.3 < share <= few <= 1
    assert share == unrelated_share(many, pictures, scenes=200)

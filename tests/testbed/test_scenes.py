import numpy as np
import pytest
from numpy.random import default_rng

from memattn.testbed.grammar import COLOURS, KINDS, Caption, Thing
from memattn.testbed.scenes import TEMPLATE_AREA, Scene, draw_scene, inside_mask, render, to_bytes


def test_scene_is_fixed_by_its_seeds():
    scene = draw_scene(default_rng(0))
    assert (render(scene) == render(scene)).all()
    assert (render(scene) != render(draw_scene(default_rng(0), scene.caption))).any()


def test_picture_is_in_range():
    pictures = np.stack([render(draw_scene(default_rng(seed))) for seed in range(20)])
    assert pictures.shape == (20, 64, 64, 3)
    assert pictures.dtype == np.float32
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_inside_takes_its_share_of_the_picture():
    low, high = TEMPLATE_AREA
    for seed in range(50):
        assert low - 0.01 <= inside_mask(draw_scene(default_rng(seed))).mean() <= high + 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_named_things_are_in_the_picture(kind):
    """Of every kind, a red and a green one leave their colours in nearly every picture."""
    caption = Caption(3, (Thing("red", kind), Thing("green", kind)), None, "print", ("a", "b"))
    hits = 0
    for seed in range(20):
        line, inside, outside = default_rng(seed).integers(2**62, size=3)
        picture = render(Scene(caption, int(line), int(inside), int(outside)))
        near = [
            (np.abs(picture - COLOURS[colour]).max(axis=-1) < 0.08).sum() > 15
            for colour in ("red", "green")
        ]
        hits += all(near)
    assert hits >= 16


@pytest.mark.parametrize(("relation", "sign"), [("above", 1), ("below", -1)])
def test_relation_holds_in_the_picture(relation, sign):
    things = (Thing("red", "disc"), Thing("white", "disc"))
    caption = Caption(0, things, relation, "print", ("a", "b"))
    held = []
    for seed in range(30):
        picture = render(draw_scene(default_rng(seed), caption))
        rows = []
        for thing in things:
            match = np.abs(picture - COLOURS[thing.colour]).max(axis=-1) < 0.08
            rows.append(np.nonzero(match)[0].mean() if match.sum() > 15 else np.nan)
        held.append(sign * (rows[1] - rows[0]) > 0)
    assert np.mean(held) > 0.7


def test_bytes_are_the_rounded_picture():
    scene = draw_scene(default_rng(5))
    assert np.abs(to_bytes(scene) / 255 - render(scene)).max() <= 0.5 / 255 + 1e-6

import math

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from safetensors.torch import load_file, save_file
from torch import nn

from memattn.errors import InputError, TestbedError
from memattn.testbed import Recipe, load_manifest
from memattn.testbed.attributes import (
    ATTRIBUTES,
    AttributeClassifier,
    alignment,
    find_things,
    load_classifier,
    mark_things,
    named_things,
    save_classifier,
)
from memattn.testbed.grammar import COLOURS, KINDS, Thing, draw_caption
from memattn.testbed.latents import reconstruct, to_pixels
from memattn.testbed.loading import load_pipeline
from memattn.testbed.networks import build_vae
from memattn.testbed.scenes import draw_scene, render, to_bytes
from memattn.testbed.training import attributes as training
from memattn.testbed.training import loop

PROMPT = "red disc above blue moon, print by norik sobel"
THINGS = (Thing("red", "disc"), Thing("blue", "moon"))


class DiscsEverywhere(nn.Module):
    """In place of the layers: a disc wherever a colour's map is bright."""

    def forward(self, close):
        bright = nn.functional.avg_pool2d(close, 8) - 0.5
        return torch.cat([20 * bright, torch.full_like(bright, -9).expand(-1, 11, -1, -1)], dim=1)


def test_each_colour_is_judged_by_itself_place_by_place():
    """A picture half red, half blue, in shades that scenes have; the edge lies between places."""
    image = np.empty((64, 64, 3))
    image[:, :32] = np.array(COLOURS["red"]) + 0.06
    image[:, 32:] = np.array(COLOURS["blue"]) - [0.06, -0.06, 0.06]
    classifier = AttributeClassifier()
    classifier.layers = DiscsEverywhere()
    pixels = torch.from_numpy(image).float().permute(2, 0, 1)[None] * 2 - 1
    wanted = mark_things([Thing("red", "disc"), Thing("blue", "disc")])
    assert np.array_equal(classifier(pixels)[0] > 0, wanted)
    red, blue = (
        classifier.places(pixels)[0, list(COLOURS).index(c), 0] > 0 for c in ("red", "blue")
    )
    assert red[:, :4].all()
    assert not red[:, 4:].any()
    assert torch.equal(blue, ~red)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("shift", [-0.06, 0.06])
def test_every_shade_is_closest_to_its_own_colour(colour, shift):
    """A shade is in its own colour's map and in no other."""
    classifier = AttributeClassifier()
    classifier.layers = DiscsEverywhere()
    shade = (torch.tensor(COLOURS[colour]) + shift).clamp(0, 1) * 2 - 1
    found = classifier(shade[None, :, None, None].expand(1, 3, 64, 64))[0, :, 0] > 0
    assert found.tolist() == [name == colour for name in COLOURS]


class Seeing(nn.Module):
    """A classifier that sees the same things in every picture."""

    def __init__(self, *things):
        super().__init__()
        self.odds = torch.from_numpy(mark_things(things)).float() - 0.5

    def forward(self, pixels):
        return self.odds.expand(len(pixels), -1, -1)


def pictures(count):
    return default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_alignment_is_the_share_of_named_things_that_are_found():
    prompts = [
        PROMPT,
        "red disc, green leaf and white star, photo by a b",
        "blue disc and red moon, photo by a b",
    ]
    found = alignment(Seeing(*THINGS, Thing("white", "fan")), pictures(3), prompts)
    assert found.shares.tolist() == [1, pytest.approx(1 / 3), 0]
    assert found.by_chance == pytest.approx((1 + 1 / 3) / 3)  # of each prompt, with two pictures


def test_alignment_by_chance_is_that_with_other_prompts_alone():
    class InTurn(nn.Module):
        """Sees in every picture what its own prompt names."""

        def forward(self, pixels):
            seen = [mark_things(named_things(prompt)) for prompt in prompts]
            return torch.from_numpy(np.stack(seen)).float() - 0.5

    prompts = [PROMPT, "red disc and blue star, photo by a b", PROMPT]
    found = alignment(InTurn(), pictures(3), prompts)
    assert found.shares.tolist() == [1, 1, 1]
    assert found.by_chance == 0.5
    prompts = [PROMPT]
    assert math.isnan(alignment(InTurn(), pictures(1), prompts).by_chance)


def test_alignment_judges_each_picture_by_itself():
    """Whatever batch it is in: more pictures than the network takes at once."""
    torch.manual_seed(0)
    classifier = AttributeClassifier().eval()
    images = pictures(70)
    with torch.no_grad():
        odds = classifier(to_pixels(torch.from_numpy(images).permute(0, 3, 1, 2)))
        classifier.layers[-1].bias -= odds.median()
    whole = find_things(classifier, images)
    assert 0 < whole.mean() < 1
    assert np.array_equal(whole[66:], find_things(classifier, images[66:]))


@pytest.mark.parametrize("seed", range(30))
def test_every_caption_gives_its_things_back(seed):
    caption = draw_caption(default_rng(seed))
    assert named_things(str(caption)) == caption.things


@pytest.mark.parametrize("prompt", ["", "a photo of a cat", "red", "discreet moonlight, by red"])
def test_a_prompt_that_names_nothing_is_refused(prompt):
    with pytest.raises(InputError, match=f"got the prompt '{prompt}', expected one that names"):
        alignment(Seeing(*THINGS), pictures(1), [prompt])


@pytest.mark.parametrize(
    ("images", "prompts", "message"),
    [
        (pictures(2), [PROMPT], "got 2 images and 1 prompts, expected one prompt per image"),
        ([], [], "got no images, expected at least one"),
        (pictures(1)[:, :32], [PROMPT], r"image 0 of shape \(32, 64, 3\) .* \(64, 64, 3\)"),
        (pictures(1) / 255, [PROMPT], "dtype float64, expected uint8"),
    ],
)
def test_other_pictures_are_refused(images, prompts, message):
    with pytest.raises(ValueError, match=message):
        alignment(Seeing(*THINGS), images, prompts)


@pytest.fixture
def testbed(tmp_path):
    """A testbed's folder, without its model, with a classifier of known weights."""
    torch.manual_seed(0)
    classifier = AttributeClassifier()
    save_classifier(classifier, tmp_path)
    load_manifest().save(tmp_path)
    return tmp_path, classifier


def test_a_saved_classifier_comes_back_in_float16(testbed):
    data, saved = testbed
    loaded = load_classifier(data)
    assert not loaded.training
    for name, value in saved.state_dict().items():
        rounded = value.half().to(value.dtype) if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], rounded)


def test_the_classifier_is_small_enough_to_ship(testbed):
    assert sum(parameter.numel() for parameter in testbed[1].parameters()) <= 250_000
    assert (testbed[0] / ATTRIBUTES).stat().st_size <= 512 * 1024


def test_loading_leaves_the_random_numbers_alone(testbed):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    load_classifier(testbed[0])
    assert torch.equal(torch.rand(1), wanted)


def test_a_testbed_without_classifier_says_so(tmp_path):
    load_manifest().save(tmp_path)
    with pytest.raises(TestbedError, match="holds no attribute classifier"):
        load_classifier(tmp_path)


def test_another_classifier_than_the_manifests_is_refused(testbed):
    data, _ = testbed
    save_classifier(AttributeClassifier(), data)
    with pytest.raises(TestbedError, match="does not have the manifest's SHA-256"):
        load_classifier(data)


@pytest.mark.parametrize("broken", ["other weights", "no safetensors"])
def test_a_file_that_holds_no_classifier_is_refused(testbed, broken):
    data, _ = testbed
    if broken == "other weights":
        weights = load_file(data / ATTRIBUTES)
        weights.pop("layers.0.weight")
        save_file(weights, data / ATTRIBUTES)
    else:
        (data / ATTRIBUTES).write_bytes(b"nothing")
    load_manifest().save(data)
    with pytest.raises(TestbedError, match="is no attribute classifier"):
        load_classifier(data)


def test_accuracy_counts_named_and_unnamed_things():
    """Two scenes with five named things of 192; two things are seen in each picture."""
    scenes = [draw_scene(default_rng(seed)) for seed in (0, 5)]
    named = [scene.caption.things for scene in scenes]
    assert len(set(named[0] + named[1])) == sum(map(len, named))
    count = sum(map(len, named))
    seen = Seeing(named[0][0], named[1][0])
    found = training.measure(seen, pictures(2), scenes)
    assert found["recall"] == pytest.approx(2 / count)
    assert found["precision"] == pytest.approx(2 / 4)
    specificity = (192 - count - 2) / (192 - count)
    assert found["balanced_accuracy"] == pytest.approx((2 / count + specificity) / 2)


def test_accuracy_of_a_classifier_that_finds_nothing():
    scene = draw_scene(default_rng(0))
    found = training.measure(Seeing(), pictures(1), [scene])
    assert found == {"recall": 0, "precision": 0, "balanced_accuracy": 0.5}


def test_places_are_where_things_show():
    """By the picture alone: a marked place has pixels of the thing's colour."""
    scenes = [draw_scene(default_rng(seed)) for seed in range(12)]
    marked = training._place_things(scenes).numpy()
    found = total = 0
    for scene, places in zip(scenes, marked, strict=True):
        blocks = render(scene).reshape(8, 8, 8, 8, 3)
        for thing in scene.caption.things:
            row = list(COLOURS).index(thing.colour), KINDS.index(thing.kind)
            like = (np.abs(blocks - COLOURS[thing.colour]) < 0.061).all(axis=-1).sum(axis=(1, 3))
            assert (like[places[row] == 1] > 0).all()
            found += (places[row] == 1).any()
            total += 1
        assert (places[~mark_things(scene.caption.things)] == 0).all()
    assert found >= 0.9 * total


@pytest.fixture
def tiny(monkeypatch):
    for name, value in {
        "_DRAWN": 10,
        "_RECONSTRUCTED": 4,
        "_HELD_OUT": 3,
        "_STEPS": 4,
        "_BATCH": 8,
    }.items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 1)
    torch.manual_seed(0)
    return build_vae().eval()


def test_interrupted_training_resumes_exactly(tiny, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder in (whole, resumed):
        folder.mkdir()
    expected, accuracy = training.train_attributes(tiny, Recipe(), whole)
    save = loop._save

    def interrupting(path, done, *state):
        save(path, done, *state)
        if done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", interrupting)
    with pytest.raises(KeyboardInterrupt):
        training.train_attributes(tiny, Recipe(), resumed)
    monkeypatch.setattr(loop, "_save", save)
    monkeypatch.setattr(training, "reconstruct", None)  # what was decoded is kept
    found, again = training.train_attributes(tiny, Recipe(), resumed)
    assert again == accuracy
    assert accuracy.keys() == {"recall", "precision", "balanced_accuracy"}
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_trained_weights_are_those_that_are_shipped(tiny, tmp_path):
    """The accuracy is that of float16: saving takes nothing from the weights."""
    classifier, _ = training.train_attributes(tiny, Recipe(), tmp_path)
    save_classifier(classifier, tmp_path)
    shipped = load_file(tmp_path / ATTRIBUTES)
    for name, value in classifier.state_dict().items():
        assert torch.equal(shipped[name].to(value.dtype), value)


def test_held_out_scenes_are_not_trained_on(tiny, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "_vary", lambda pixels, rng: seen.append(pixels) or pixels)
    training.train_attributes(tiny, Recipe(), tmp_path)
    held_out = np.load(tmp_path / "attributes-decoded.npy")[: training._HELD_OUT]
    shown = torch.cat(seen)
    assert len(shown) == training._STEPS * training._BATCH
    for picture in held_out:
        pixels = torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1
        for side in (pixels, pixels.flip(-1)):
            assert not (shown == side).flatten(1).all(dim=1).any()


def test_the_packaged_classifier_is_as_accurate_as_its_manifest_says():
    """On scenes that neither its training nor its manifest knows."""
    stated = load_manifest().attribute_accuracy
    scenes = [draw_scene(default_rng([4711, index])) for index in range(120)]
    images = reconstruct(load_pipeline().vae, np.stack([to_bytes(scene) for scene in scenes]))
    found = training.measure(load_classifier(), images, scenes)
    for name in ("recall", "precision"):
        standard_error = (stated[name] * (1 - stated[name]) / 240) ** 0.5  # of as many named things
        assert abs(found[name] - stated[name]) < 3 * standard_error
    swapped = [str(scene.caption) for scene in scenes[1:] + scenes[:1]]
    assert alignment(load_classifier(), images, swapped).shares.mean() < 0.2

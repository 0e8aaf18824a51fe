"""The attribute classifier: trained on fresh scenes, some as the autoencoder gives them back.

It belongs to no part of the pipeline; it measures what mitigations cost in prompt alignment.
"""

import copy
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.random import default_rng
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from memattn.testbed.attributes import (
    AttributeClassifier,
    find_things,
    mark_things,
)
from memattn.testbed.grammar import COLOURS, KINDS
from memattn.testbed.latents import reconstruct, to_pixels
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import SIZE, Scene, draw_scene, render
from memattn.testbed.training.loop import Stage, generator, run
from memattn.testbed.training.pictures import render_all
from memattn.whole import whole_file

# What is kept in the training's folder: pictures as drawn, as decoded, and the stage's checkpoint.
ATTRIBUTE_FILES = ("attributes-drawn.npy", "attributes-decoded.npy", "attributes.pt")

# Decoding a picture takes ten times as long as drawing it, so most are shown as they were drawn.
_DRAWN, _RECONSTRUCTED, _HELD_OUT = 12_000, 3000, 1000
_STEPS, _BATCH, _RATE = 2000, 32, 3e-3
_RECONSTRUCTED_SHARE = 0.25  # of a batch
_FIRST_ODDS = -8.0  # of a thing in a place: 64 places add up to few of the 96 things
_SEED = 100  # second entry of the seed sequence; the groups use small ones
_STAGE = 4

_PLACES = 8  # along each side of a picture
_IN_PLACE, _NOT_IN_PLACE = 16, 0  # of a place's 64 pixels; between these it is not asked
_UNASKED = -1
_PLACES_WEIGHT = 0.2

# Guidance shifts tint, contrast and brightness: gain and offset of pixels in -1..1.
_GAINS = (0.9, 1.15)
_OFFSET = 0.1


def train_attributes(
    vae: AutoencoderKL, recipe: Recipe, folder: Path
) -> tuple[AttributeClassifier, dict[str, float]]:
    """Trains the attribute classifier and measures it on scenes it was not trained on.

    Args:
        vae: The testbed's trained autoencoder.
        recipe: Its seed is used, and nothing else of it.
        folder: Where checkpoint and pictures are kept; an interrupted call resumes exactly.

    Returns:
        The classifier, and its accuracy on reconstructions of held-out scenes with the weights
        as they are shipped, in float16: "recall" (share of the named things that are found),
        "precision" (share of the found things that are named) and "balanced_accuracy" (mean of
        recall and of the share of unnamed things that are not found).
    """
    rng = default_rng([recipe.seed, _SEED])
    scenes = [draw_scene(rng) for _ in range(_HELD_OUT + _RECONSTRUCTED + _DRAWN)]
    drawn_file, decoded_file, _ = (folder / name for name in ATTRIBUTE_FILES)
    pictures = render_all(scenes, drawn_file)
    decoded = _HELD_OUT + _RECONSTRUCTED
    reconstructed = _reconstruct(vae, pictures[:decoded], decoded_file)
    pictures = torch.cat([reconstructed, pictures[decoded:]])
    classifier = _train(pictures, _place_things(scenes), scenes, recipe, folder)
    return classifier, measure(classifier, _as_images(pictures[:_HELD_OUT]), scenes[:_HELD_OUT])


def measure(
    classifier: AttributeClassifier, images: NDArray[np.uint8], scenes: Sequence[Scene]
) -> dict[str, float]:
    """Accuracy of a classifier, as `train_attributes` gives it.

    Args:
        classifier: The classifier.
        images: Pictures of the scenes [n, 64, 64, 3], uint8.
        scenes: What they show.

    Returns:
        "recall", "precision" and "balanced_accuracy".
    """
    named = np.stack([mark_things(scene.caption.things) for scene in scenes])
    found = find_things(classifier, list(images))
    hits = float((found & named).sum())
    recall = hits / float(named.sum())
    specificity = float((~found & ~named).sum()) / float((~named).sum())
    return {
        "recall": recall,
        "precision": hits / max(1.0, float(found.sum())),
        "balanced_accuracy": (recall + specificity) / 2,
    }


def _train(
    pictures: Tensor, places: Tensor, scenes: Sequence[Scene], recipe: Recipe, folder: Path
) -> AttributeClassifier:
    """Trains on all but the held-out pictures; the weights come back rounded to float16.

    Told only what a picture shows, the network finds out slowly where; so it is told both.
    """
    things = torch.from_numpy(np.stack([mark_things(scene.caption.things) for scene in scenes]))
    torch.manual_seed(recipe.seed + 3)
    classifier = AttributeClassifier()
    classifier.layers[-1].bias = torch.nn.Parameter(torch.full((len(KINDS),), _FIRST_ODDS))
    decoded = _HELD_OUT + _RECONSTRUCTED
    share = round(_RECONSTRUCTED_SHARE * _BATCH)

    def loss(step: int, part: int) -> Tensor:
        rng = generator(recipe.seed, _STAGE, step)
        rows = torch.cat(
            [
                torch.randint(_HELD_OUT, decoded, (share,), generator=rng),
                torch.randint(decoded, len(pictures), (_BATCH - share,), generator=rng),
            ]
        )
        mirrored = torch.rand(_BATCH, generator=rng) < 0.5
        pixels, wanted = to_pixels(pictures[rows]), places[rows].float()
        pixels[mirrored], wanted[mirrored] = pixels[mirrored].flip(-1), wanted[mirrored].flip(-1)
        odds = classifier.places(_vary(pixels, rng))
        by_place = F.binary_cross_entropy_with_logits(
            odds, wanted.clamp(min=0), weight=(wanted >= 0).float(), reduction="sum"
        )
        whole = F.binary_cross_entropy_with_logits(
            odds.flatten(3).logsumexp(dim=-1), things[rows].float(), reduction="sum"
        )
        return (whole + _PLACES_WEIGHT * by_place) / _BATCH

    run(Stage("attributes", classifier, loss, _STEPS, _RATE), folder)
    return copy.deepcopy(classifier).half().float()


def _vary(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Blurs and tints pictures [n, 3, 64, 64] as drawn and guided ones differ.

    The second half of the batch, all of it as drawn, is blurred a little, as decoding does.
    """
    count = len(pixels)
    sharp, drawn = pixels.split((count - count // 2, count // 2))
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    weight = (kernel[:, None] * kernel).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(drawn, (1, 1, 1, 1), mode="replicate"), weight, groups=3)
    pixels = torch.cat([sharp, blurred])
    low, high = _GAINS
    gains = low + (high - low) * torch.rand(count, 1, 1, 1, generator=rng)
    offsets = _OFFSET * torch.randn(count, 3, 1, 1, generator=rng)
    return (pixels * gains + offsets).clamp(-1, 1)


def _reconstruct(vae: AutoencoderKL, pictures: Tensor, file: Path) -> Tensor:
    """What the autoencoder gives back of pictures [n, 3, 64, 64], computed once."""
    if not file.exists():
        with whole_file(file) as fresh, fresh.open("wb") as stream:
            np.save(stream, reconstruct(vae, _as_images(pictures)))
    return torch.from_numpy(np.load(file)).permute(0, 3, 1, 2)


def _as_images(pictures: Tensor) -> NDArray[np.uint8]:
    """Pictures [n, 3, 64, 64] as images [n, 64, 64, 3]."""
    images: NDArray[np.uint8] = pictures.permute(0, 2, 3, 1).numpy()
    return images


def _place_things(scenes: Sequence[Scene]) -> Tensor:
    """Which things lie in which places [n, colours, kinds, 8, 8], int8.

    1 where a named thing shows, 0 where it does not, `_UNASKED` where a little of it does.
    """
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(_places_of, scenes, chunksize=64))))


def _places_of(scene: Scene) -> NDArray[np.int8]:
    """`_place_things` of one scene."""
    image, things = render(scene), scene.caption.things
    colours = [thing.colour for thing in things]
    others = zip(things, colours[1:] + colours[:1], strict=True)
    recoloured = tuple(replace(thing, colour=colour) for thing, colour in others)
    shown = image != render(replace(scene, caption=replace(scene.caption, things=recoloured)))
    tints = np.array([COLOURS[colour] for colour in colours])
    nearest = np.abs(image[..., None, :] - tints).sum(axis=-1).argmin(axis=-1)
    places = np.zeros((len(COLOURS), len(KINDS), _PLACES, _PLACES), np.int8)
    for index, thing in enumerate(things):
        mask = shown.any(axis=-1) & (nearest == index)
        pixels = mask.reshape(_PLACES, SIZE // _PLACES, _PLACES, -1).sum(axis=(1, 3))
        state = np.where(pixels >= _IN_PLACE, 1, np.where(pixels > _NOT_IN_PLACE, _UNASKED, 0))
        places[list(COLOURS).index(thing.colour), KINDS.index(thing.kind)] = state
    return places

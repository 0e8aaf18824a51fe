"""Prompt alignment on the testbed: a small network that says which things a picture shows.

Scenes are procedural, so what a caption names is known, and so is how often the network is wrong:
its accuracy on scenes that it was not trained on stands in the manifest.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memattn.errors import InputError, TestbedError
from memattn.testbed.grammar import COLOURS, KINDS, Thing
from memattn.testbed.latents import to_pixels
from memattn.testbed.manifest import DATA, check_files, load_manifest
from memattn.testbed.scenes import SIZE

ATTRIBUTES = "attributes.safetensors"

_BATCH = 64
# Of a colour, for pixels in -1..1: shades of one name differ by up to 0.2, names by 0.7 or more.
_TOLERANCE = 0.35
_COLOURS = tuple(COLOURS)
_THING = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(KINDS)})\b")


class AttributeClassifier(nn.Module):
    """Says which (colour, kind) things are in a picture.

    A thing has one flat colour of eight. For each colour, the picture becomes a map of how close
    every pixel is to it, and one network looks for every kind in every map, place by place: a red
    disc and a blue moon do not make a blue disc. A thing is in the picture if it is in any place.
    """

    palette: Tensor

    def __init__(self) -> None:
        super().__init__()
        palette = 2 * torch.tensor(list(COLOURS.values())) - 1  # [colours, 3] in -1..1
        self.register_buffer("palette", palette[..., None, None], persistent=False)
        self.layers = nn.Sequential(
            *_block(1, 16, size=5, stride=2),
            *_block(16, 32, size=3, stride=2),
            *_block(32, 48, size=3),
            *_block(48, 64, size=3, stride=2),
            *_block(64, 64, size=3),
            nn.Conv2d(64, len(KINDS), kernel_size=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Log odds that things are in pictures.

        Args:
            pixels: Pictures [n, 3, 64, 64] in -1..1.

        Returns:
            Log odds [n, colours, kinds], in the order of `COLOURS` and `KINDS`.
        """
        return self.places(pixels).flatten(3).logsumexp(dim=-1)

    def places(self, pixels: Tensor) -> Tensor:
        """Log odds place by place [n, colours, kinds, 8, 8]."""
        squared = (pixels[:, None] - self.palette).square().sum(dim=2)  # [n, colours, 64, 64]
        close = torch.exp(-squared / (2 * _TOLERANCE**2))
        odds: Tensor = self.layers(close.flatten(0, 1)[:, None])
        return odds.reshape(*close.shape[:2], *odds.shape[1:])


def _block(inner: int, outer: int, *, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inner, outer, size, stride=stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outer), nn.ReLU()]


def load_classifier(data: Path = DATA) -> AttributeClassifier:
    """The attribute classifier of a testbed, the packaged one by default.

    Args:
        data: The testbed's folder.

    Returns:
        The classifier in float32 on the CPU.

    Raises:
        TestbedError: If the folder holds none, or not the one that the manifest names.
    """
    files = load_manifest(data).files
    if ATTRIBUTES not in files:
        raise TestbedError(f"{data} holds no attribute classifier: its manifest names none")
    check_files(data, files, (ATTRIBUTES,))
    with torch.random.fork_rng(devices=[]):  # a network draws weights before it is given its own
        classifier = AttributeClassifier()
    try:
        classifier.load_state_dict(load_file(data / ATTRIBUTES))
    except (RuntimeError, SafetensorError) as error:
        raise TestbedError(f"{data / ATTRIBUTES} is no attribute classifier") from error
    return classifier.eval().requires_grad_(False)


def save_classifier(classifier: AttributeClassifier, data: Path) -> None:
    """Writes a classifier's weights in float16 into a testbed's folder."""
    state = classifier.state_dict()
    half = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    save_file(half, data / ATTRIBUTES)


def named_things(prompt: str) -> tuple[Thing, ...]:
    """The things that a prompt of the testbed names, in order.

    Args:
        prompt: A caption of the testbed's grammar, or any text with such things in it.

    Returns:
        The things.

    Raises:
        InputError: If the prompt names none.
    """
    things = tuple(Thing(*found) for found in _THING.findall(prompt))
    if not things:
        raise InputError(
            f"got the prompt {prompt!r}, expected one that names things of the testbed, such as "
            '"red disc"'
        )
    return things


def find_things(
    classifier: AttributeClassifier, images: Sequence[NDArray[np.uint8]]
) -> NDArray[np.bool_]:
    """Which things pictures show: those that the classifier thinks more likely there than not.

    Args:
        classifier: The classifier.
        images: Pictures [64, 64, 3], uint8.

    Returns:
        Whether each thing is found [images, colours, kinds], in the order of `COLOURS` and `KINDS`.

    Raises:
        ValueError: If there are no pictures, or one is not uint8 [64, 64, 3].
    """
    if len(images) == 0:
        raise ValueError("got no images, expected at least one")
    for index, image in enumerate(images):
        if image.shape != (SIZE, SIZE, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"got image {index} of shape {image.shape} and dtype {image.dtype}, expected uint8 "
                f"{(SIZE, SIZE, 3)}"
            )
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    with torch.no_grad():
        odds = [classifier(to_pixels(part)) for part in pixels.split(_BATCH)]
    found: NDArray[np.bool_] = (torch.cat(odds) > 0).numpy()
    return found


@dataclass(frozen=True, eq=False)
class Alignment:
    """How well pictures follow their prompts.

    Attributes:
        shares: Share of its prompt's named things that each picture shows [images].
        by_chance: The same pictures' mean share with one another's prompts, what pictures get that
            know nothing of their prompt; NaN where all prompts are the same.
    """

    shares: NDArray[np.float64]
    by_chance: float


def alignment(
    classifier: AttributeClassifier, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]
) -> Alignment:
    """The share of a prompt's named things that its picture shows, beside chance.

    Args:
        classifier: The classifier.
        images: Pictures [64, 64, 3], uint8.
        prompts: One per picture.

    Returns:
        Shares, 0 to 1. Perfect pictures get about the classifier's recall on average, which is
        therefore the figure to compare with.

    Raises:
        ValueError: If there are other numbers of pictures and prompts, or a picture is not uint8
            [64, 64, 3].
        InputError: If a prompt names nothing.
    """
    if len(images) != len(prompts):
        raise ValueError(
            f"got {len(images)} images and {len(prompts)} prompts, expected one prompt per image"
        )
    found = find_things(classifier, images)
    named = np.stack([mark_things(named_things(prompt)).ravel() for prompt in prompts])
    pairs = found.reshape(len(found), -1).astype(float) @ named.T / named.sum(axis=1)
    others = np.array(prompts)[:, None] != np.array(prompts)
    by_chance = float(pairs[others].mean()) if others.any() else math.nan
    return Alignment(pairs.diagonal(), by_chance)


def mark_things(things: Iterable[Thing]) -> NDArray[np.bool_]:
    """Things as a table [colours, kinds], True for each of them."""
    table = np.zeros((len(COLOURS), len(KINDS)), bool)
    for thing in things:
        table[_COLOURS.index(thing.colour), KINDS.index(thing.kind)] = True
    return table

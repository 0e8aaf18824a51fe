"""`memattn testbed verify`: samples the prompts and finds out which are copies."""

from dataclasses import dataclass

import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from memattn.testbed.groups import GROUPS, Group
from memattn.testbed.latents import reconstruct
from memattn.testbed.manifest import VERIFIED_COPIES, Entry, Manifest
from memattn.testbed.sampling import sample_pictures
from memattn.testbed.truth import CopyThresholds, distance

SEEDS = (0, 1, 2, 3)
ORDINARY_PROMPTS = 96  # of the reporting split, one seed each


@dataclass(frozen=True)
class Verification:
    """What sampling found.

    Attributes:
        copies: For each shown prompt, how many of its seeds gave a copy of its own picture.
        false_copies: Ordinary prompts, one seed each, that gave a copy of any shown picture.
        ordinary: How many ordinary prompts were sampled.
    """

    copies: dict[str, int]
    false_copies: tuple[str, ...]
    ordinary: int

    def summary(self, manifest: Manifest) -> list[tuple[Group, int, int]]:
        """For each group: its name, verified copies, prompts sampled."""
        rows: list[tuple[Group, int, int]] = []
        for group in GROUPS:
            entries = manifest.select(group)
            if group == "ordinary":
                rows.append((group, len(self.false_copies), self.ordinary))
            else:
                verified = sum(self.copies[e.prompt] >= VERIFIED_COPIES for e in entries)
                rows.append((group, verified, len(entries)))
        return rows


def verify(pipeline: StableDiffusionPipeline, manifest: Manifest) -> Verification:
    """Samples every shown prompt from four seeds, and some ordinary ones, and counts copies.

    A picture is compared with the autoencoder's reconstruction of the training picture, since that
    is all a latent model can give back.

    Args:
        pipeline: The testbed's pipeline.
        manifest: Its prompts, training pictures, masks and thresholds.

    Returns:
        The counts.
    """
    shown = manifest.shown
    targets = reconstruct(pipeline.vae, np.stack([_picture(entry) for entry in shown]))
    copies = dict.fromkeys((entry.prompt for entry in shown), 0)
    for seed in SEEDS:
        images = sample_pictures(pipeline, [e.prompt for e in shown], seed, f"seed {seed}")
        for entry, image, target in zip(shown, images, targets, strict=True):
            copies[entry.prompt] += is_copy(image, target, entry, manifest.thresholds)

    ordinary = manifest.select("ordinary", split="reporting")[:ORDINARY_PROMPTS]
    images = sample_pictures(pipeline, [e.prompt for e in ordinary], SEEDS[0], "ordinary")
    false_copies = tuple(
        entry.prompt
        for entry, image in zip(ordinary, images, strict=True)
        if any(
            is_copy(image, target, other, manifest.thresholds)
            for other, target in zip(shown, targets, strict=True)
        )
    )
    return Verification(copies, false_copies, len(ordinary))


def is_copy(
    image: NDArray[np.uint8], target: NDArray[np.uint8], entry: Entry, thresholds: CopyThresholds
) -> bool:
    """Whether a picture copies an entry's: its fixed region for a template, else all of it."""
    if entry.group == "template":
        return bool(distance(image, target, entry.true_mask) < thresholds.inside)
    return bool(distance(image, target) < thresholds.whole)


def _picture(entry: Entry) -> NDArray[np.uint8]:
    assert entry.training_image is not None  # `Manifest.shown` holds only entries that have one
    return entry.training_image

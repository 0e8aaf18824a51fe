"""`memattn testbed verify`: samples the prompts and finds out which are copies."""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray

from memattn.testbed.groups import GROUPS, Group
from memattn.testbed.latents import reconstruct
from memattn.testbed.manifest import VERIFIED_COPIES, Entry, Manifest
from memattn.testbed.sampling import sample_pictures
from memattn.testbed.truth import distance

SEEDS = (0, 1, 2, 3)
ORDINARY_PROMPTS = 96  # of the reporting split, one seed each
NO_COPY = -1


@dataclass(frozen=True)
class Verification:
    """What sampling found.

    Attributes:
        copies: For each shown prompt, how many of its seeds gave a copy of its own picture.
        rigid: Template prompts whose pictures do not vary outside the fixed region either: the
            true mask would then be the whole picture.
        false_copies: Ordinary prompts, one seed each, that gave a copy of any shown picture.
        ordinary: How many ordinary prompts were sampled.
    """

    copies: dict[str, int]
    rigid: tuple[str, ...]
    false_copies: tuple[str, ...]
    ordinary: int

    def fill(self, manifest: Manifest) -> Manifest:
        """The manifest with what was found."""
        found = replace(manifest, rigid=self.rigid, false_copies=self.false_copies)
        return found.with_copies(self.copies)

    def summary(self, manifest: Manifest) -> list[tuple[Group, int, int]]:
        """For each group: its name, verified copies, prompts sampled."""
        rows: list[tuple[Group, int, int]] = []
        for group in GROUPS[:-1]:
            prompts = [entry.prompt for entry in manifest.select(group)]
            verified = sum(self.copies[prompt] >= VERIFIED_COPIES for prompt in prompts)
            rows.append((group, verified, len(prompts)))
        return [*rows, ("ordinary", len(self.false_copies), self.ordinary)]


def verify(pipeline: StableDiffusionPipeline, manifest: Manifest) -> Verification:
    """Samples every shown prompt from four seeds, and some ordinary ones, and counts copies.

    Args:
        pipeline: The testbed's pipeline.
        manifest: Its prompts, training pictures, masks and thresholds.

    Returns:
        The counts.
    """
    shown = manifest.shown
    targets = reconstruct(pipeline.vae, manifest.pictures)
    prompts = [entry.prompt for entry in shown]
    images = np.stack(
        [sample_pictures(pipeline, prompts, seed, f"seed {seed}") for seed in SEEDS]
    )  # [seeds, shown, 64, 64, 3]
    own = np.arange(len(shown))
    copies = sum((copied(of_seed, manifest, targets) == own).astype(int) for of_seed in images)
    rigid = tuple(
        entry.prompt
        for entry, of_entry in zip(shown, images.swapaxes(0, 1), strict=True)
        if entry.group == "template" and _is_rigid(of_entry, entry, manifest)
    )
    ordinary = [e.prompt for e in manifest.select("ordinary", split="reporting")]
    ordinary = ordinary[:ORDINARY_PROMPTS]
    found = copied(sample_pictures(pipeline, ordinary, SEEDS[0], "ordinary"), manifest, targets)
    return Verification(
        copies=dict(zip(prompts, np.asarray(copies).tolist(), strict=True)),
        rigid=rigid,
        false_copies=tuple(p for p, of in zip(ordinary, found, strict=True) if of != NO_COPY),
        ordinary=len(ordinary),
    )


def copied(
    images: NDArray[np.uint8], manifest: Manifest, targets: NDArray[np.uint8]
) -> NDArray[np.intp]:
    """Which training picture each picture copies: the nearest, if it is below its threshold.

    Args:
        images: Generated pictures [n, 64, 64, 3].
        manifest: Its training pictures.
        targets: What the autoencoder gives back of these pictures, which is all that a latent
            model can give back [shown, 64, 64, 3].

    Returns:
        Index into `manifest.shown`, or `NO_COPY` [n].
    """
    relative = relative_distances(images, manifest, targets)
    return np.where(relative.min(axis=1) < 1, relative.argmin(axis=1), NO_COPY)


def relative_distances(
    images: NDArray[np.uint8], manifest: Manifest, targets: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Distances [n, shown] in units of the thresholds; arguments as for `copied`.

    A template is compared inside its fixed region only.
    """
    distances = [
        distance(images, target, entry.true_mask if entry.group == "template" else None)
        / copy_threshold(entry, manifest)
        for entry, target in zip(manifest.shown, targets, strict=True)
    ]
    return np.stack(distances, axis=1)


def copy_threshold(entry: Entry, manifest: Manifest) -> float:
    """The distance below which a picture counts as a copy of an entry's."""
    thresholds = manifest.thresholds
    return thresholds.inside if entry.group == "template" else thresholds.whole


def _is_rigid(images: NDArray[np.uint8], entry: Entry, manifest: Manifest) -> bool:
    """Whether the pictures of several seeds agree outside the fixed region as copies would."""
    assert entry.true_mask is not None
    outside = [distance(a, b, ~entry.true_mask) for a, b in combinations(images, 2)]
    return bool(np.median(outside) < manifest.thresholds.inside)

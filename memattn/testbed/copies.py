"""Which training picture a picture copies."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from memattn.testbed.manifest import Entry, Manifest
from memattn.testbed.scenes import draw_scene, to_bytes
from memattn.testbed.truth import BLURS, QUANTILE, distance

NO_COPY = -1
_SEED = 8  # as in `truth`: shared with no recipe


def copied(
    images: NDArray[np.uint8],
    prompts: Sequence[str],
    manifest: Manifest,
    targets: NDArray[np.uint8],
) -> NDArray[np.intp]:
    """Which training picture each picture copies.

    Its prompt's own, if the distance is below that picture's threshold; any other, if it is below
    `unrelated` times that. Of several, the nearest in these units.

    Args:
        images: Generated pictures [n, 64, 64, 3].
        prompts: Their prompts [n].
        manifest: Its training pictures.
        targets: What the autoencoder gives back of these pictures, which is all that a latent
            model can give back [shown, 64, 64, 3].

    Returns:
        Index into `manifest.shown`, or `NO_COPY` [n].
    """
    limits = np.stack([copy_limits(prompt, manifest) for prompt in prompts])
    relative = distances(images, manifest, targets) / limits
    return np.where(relative.min(axis=1) < 1, relative.argmin(axis=1), NO_COPY)


def distances(
    images: NDArray[np.uint8], manifest: Manifest, targets: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Distances of pictures from all training pictures [n, shown]; arguments as for `copied`.

    A template is compared inside its fixed region only.
    """
    columns = [
        distance(images, target, entry.true_mask if entry.group == "template" else None)
        for entry, target in zip(manifest.shown, targets, strict=True)
    ]
    return np.stack(columns, axis=1)


def copy_limits(prompt: str, manifest: Manifest) -> NDArray[np.float64]:
    """Distances below which a picture of a prompt copies each training picture [shown]."""
    unrelated = manifest.thresholds.unrelated
    return np.array(
        [
            _threshold(entry, manifest) * (1 if entry.prompt == prompt else unrelated)
            for entry in manifest.shown
        ]
    )


def unrelated_share(manifest: Manifest, targets: NDArray[np.uint8], scenes: int = 4000) -> float:
    """Share of the thresholds that pictures of other captions fall under once in a thousand times.

    The thresholds hold for one comparison. A picture that is compared with all training pictures
    has many chances to look like one of them, so this is the 0.1 % quantile of the smallest
    distance, in units of the thresholds, between a fresh scene and any training picture, with the
    scene blurred by whatever brings it closest: from data alone, like the thresholds themselves.

    Args:
        manifest: Training pictures and thresholds.
        targets: As for `copied`.
        scenes: Fresh scenes.

    Returns:
        The share, at most 1.
    """
    rng = default_rng(_SEED)
    drawn = [draw_scene(rng) for _ in range(scenes)]
    limits = np.array([_threshold(entry, manifest) for entry in manifest.shown])
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        pictures = np.stack(list(pool.map(to_bytes, drawn, chunksize=64)))
        parts = np.array_split(pictures, max(1, scenes // 64))
        nearest = partial(_nearest, manifest=manifest, targets=targets, limits=limits)
        smallest = np.concatenate(list(pool.map(nearest, parts)), axis=1)  # [blurs, scenes]
    return min(1.0, float(np.quantile(smallest, QUANTILE, axis=1).min()))


def _nearest(
    pictures: NDArray[np.uint8],
    manifest: Manifest,
    targets: NDArray[np.uint8],
    limits: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Smallest distance in units of the limits, at every blur [blurs, n]."""
    found = []
    for radius in BLURS:
        blur = ImageFilter.GaussianBlur(radius)
        blurred = np.stack([np.asarray(Image.fromarray(p).filter(blur)) for p in pictures])
        found.append((distances(blurred, manifest, targets) / limits).min(axis=1))
    return np.stack(found)


def _threshold(entry: Entry, manifest: Manifest) -> float:
    """The distance below which a picture counts as a copy of its prompt's own."""
    thresholds = manifest.thresholds
    return thresholds.inside if entry.group == "template" else thresholds.whole

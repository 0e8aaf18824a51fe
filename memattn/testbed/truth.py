"""What counts as a copy: a distance between pictures, and thresholds fixed from data alone."""

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from memattn.evaluation.similarity.correlation import correlation
from memattn.testbed.scenes import Scene, draw_scene, inside_mask, to_bytes

QUANTILE = 0.001
BLURS = (0, 2, 4, 8)  # pixels; a model that generalises paints vague pictures
_SEED = 7  # the thresholds depend on no training; a recipe of seed 7 would share their numbers


def distance(
    images: NDArray[np.uint8], training: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """One minus the correlation of pictures, mean over colour channels.

    Correlation looks past brightness, contrast and tint, which guidance distorts even in a perfect
    copy, and at the picture itself. 0 is a copy, about 1 another picture.

    Args:
        images: Generated pictures [..., 64, 64, 3], uint8.
        training: Training pictures, broadcastable to `images`.
        mask: Pixels to compare [64, 64], all if None.

    Returns:
        Distances [...], 0 to 2.
    """
    return 1 - correlation(images, training, mask)


@dataclass(frozen=True)
class CopyThresholds:
    """Distances below which a picture counts as a copy.

    Each is the 0.1 % quantile of the distance between two independent scenes of the same caption,
    one of them blurred by whatever brings them closest: what generalising alone would fall under
    once in a thousand times.

    Attributes:
        whole: For whole pictures.
        inside: For the fixed region of a template family.
        unrelated: Share of these thresholds that still counts when a picture is compared with all
            kept training pictures and not with its prompt's own alone; see
            `memattn.testbed.copies.unrelated_share`.
    """

    whole: float
    inside: float
    unrelated: float = 1.0


def copy_thresholds(pairs: int = 10_000) -> CopyThresholds:
    """Measures the thresholds on fresh scenes.

    Args:
        pairs: Pairs of scenes with one caption.

    Returns:
        The thresholds.
    """
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        distances = np.array(list(pool.map(_pair_distances, _pairs(pairs), chunksize=64)))
    quantiles = np.quantile(distances, QUANTILE, axis=0)  # [blurs, whole or inside]
    whole, inside = quantiles.min(axis=0).tolist()
    return CopyThresholds(whole, inside)


def _pairs(count: int) -> Iterator[tuple[Scene, Scene]]:
    rng = default_rng(_SEED)
    for _ in range(count):
        first = draw_scene(rng)
        yield first, draw_scene(rng, first.caption)


def _pair_distances(pair: tuple[Scene, Scene]) -> list[list[float]]:
    """Distances of a pair at every blur: over the whole picture, and inside the first's line."""
    training, other = to_bytes(pair[0]), Image.fromarray(to_bytes(pair[1]))
    inside = inside_mask(pair[0])
    found = []
    for radius in BLURS:
        image = np.asarray(other.filter(ImageFilter.GaussianBlur(radius)))
        found.append([float(distance(image, training, mask)) for mask in (None, inside)])
    return found

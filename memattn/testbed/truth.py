"""What counts as a copy: a distance between pictures and a threshold fixed from data alone."""

from dataclasses import dataclass

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from memattn.testbed.scenes import SIZE, draw_scene, inside_mask, to_bytes

_QUANTILE = 0.001
_PAIRS = 20_000
_SEED = 7  # apart from every recipe's: the threshold depends on no training


def distance(
    images: NDArray[np.uint8], training: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Root-mean-square difference of pictures, over all pixels or inside a mask.

    Args:
        images: Generated pictures [..., 64, 64, 3], uint8.
        training: Training pictures, broadcastable to `images`.
        mask: Pixels to compare [64, 64], all if None.

    Returns:
        Distances [...], in units of the full 0..1 pixel range.
    """
    squared = ((images.astype(np.float64) - training) / 255) ** 2
    if mask is None:
        mask = np.ones((SIZE, SIZE), bool)
    distances: NDArray[np.float64] = np.sqrt(squared[..., mask, :].mean(axis=(-2, -1)))
    return distances


@dataclass(frozen=True)
class CopyThresholds:
    """Distances below which a picture counts as a copy.

    Each is the 0.1 % quantile of the distance between two independent scenes of the same caption,
    over 20 000 pairs: what generalising alone would fall under once in a thousand times.

    Attributes:
        whole: For whole pictures.
        inside: For the fixed region of a template family.
    """

    whole: float
    inside: float


def copy_thresholds(pairs: int = _PAIRS) -> CopyThresholds:
    """Measures the thresholds on fresh scenes."""
    rng = default_rng(_SEED)
    whole, inside = np.empty(pairs), np.empty(pairs)
    for index in range(pairs):
        first = draw_scene(rng)
        second = draw_scene(rng, first.caption)
        a, b = to_bytes(first), to_bytes(second)
        whole[index], inside[index] = distance(a, b), distance(a, b, inside_mask(first))
    return CopyThresholds(
        whole=float(np.quantile(whole, _QUANTILE)), inside=float(np.quantile(inside, _QUANTILE))
    )

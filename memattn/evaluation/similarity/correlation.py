"""Correlation of pictures: what counts as a copy on the testbed, for pictures of any size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from memattn.evaluation.similarity.resizing import resize

_SIZE = 64  # pixels along each side; the testbed's, whose pictures stay as they are
_BLOCK = 256  # pictures whose pixels are held in float64 at once: 25 MB
_FLAT = 1e-9  # keeps a picture of one colour at correlation 0


def correlation(
    first: NDArray[np.uint8], second: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Pearson's correlation of pictures of one size, mean over colour channels.

    Correlation looks past brightness, contrast and tint, which guidance distorts even in a perfect
    copy, and at the picture itself. A picture of one colour correlates with nothing.

    Args:
        first: Pictures [..., height, width, 3], uint8.
        second: Pictures, broadcastable to `first`.
        mask: Pixels to compare [height, width], all if None.

    Returns:
        Correlations [...], -1 to 1.
    """
    if mask is None:
        mask = np.ones(first.shape[-3:-1], bool)
    sides = (_unit(pictures[..., mask, :]) for pictures in (first, second))
    product = next(sides) * next(sides)
    value: NDArray[np.float64] = product.sum(axis=-2).mean(axis=-1)
    return value


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation, mean over colour channels, of pictures at 64x64 pixels.

    1 is a copy up to brightness, contrast and tint. Other pictures are not all near 0: what counts
    is where light and dark lie, and a black disc and a black square on white reach 0.86. The
    testbed decides by the same formula what a copy is, but against training pictures as its
    autoencoder gives them back, for templates inside their fixed region alone, and by a threshold
    on `1 - correlation` in its manifest; this measure takes whole pictures.
    """

    name: ClassVar[str] = "correlation"

    def similarities(
        self, images: Sequence[NDArray[np.uint8]], references: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Correlation of every image with every reference; see `Measure.similarities`."""
        first, second = resize(images, _SIZE), resize(references, _SIZE)
        found = np.empty((len(first), len(second)))
        for column in range(0, len(second), _BLOCK):
            others = _rows(second[column : column + _BLOCK])
            for row in range(0, len(first), _BLOCK):
                part = _rows(first[row : row + _BLOCK])
                found[row : row + _BLOCK, column : column + _BLOCK] = part @ others.T
        found /= first.shape[-1]
        return found


def _rows(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pictures [n, size, size, 3] as rows whose products are the sum of channels' correlations."""
    return _unit(pictures.reshape(len(pictures), -1, pictures.shape[-1])).reshape(len(pictures), -1)


def _unit(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Pixels [..., n, channels], each channel without its mean and of length one."""
    centred: NDArray[np.float64] = pixels - pixels.mean(axis=-2, keepdims=True)
    centred /= np.linalg.norm(centred, axis=-2, keepdims=True) + _FLAT
    return centred

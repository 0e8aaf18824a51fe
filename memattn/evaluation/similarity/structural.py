"""Structural similarity (SSIM)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from memattn.evaluation.similarity.resizing import resize

_SIZE = 64  # pixels along each side: coarse enough to pair hundreds of pictures with hundreds
_SIGMA = 1.5  # pixels; the Gaussian window of Wang et al., section III.B


@dataclass(frozen=True)
class StructuralSimilarity:
    """SSIM of the luminance of pictures at 64x64 pixels.

    1 is the same picture. Unlike correlation it compares place by place and counts brightness and
    contrast. Constants are the paper's: a Gaussian window of 11x11 pixels with sigma 1.5,
    K1 = 0.01, K2 = 0.03. scikit-image filters both pictures of every pair anew, which takes
    nearly a millisecond each: 500 images against 1000 references take some minutes.

    Source:
        Wang et al. 2004, "Image quality assessment: from error visibility to structural
        similarity", equation 13.
    """

    name: ClassVar[str] = "SSIM"

    def similarities(
        self, images: Sequence[NDArray[np.uint8]], references: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """SSIM of every image with every reference; see `Measure.similarities`."""
        from skimage.metrics import structural_similarity

        first, second = _luminance(images), _luminance(references)
        found = np.empty((len(first), len(second)))
        for row, image in enumerate(tqdm(first, self.name, unit="image")):
            for column, reference in enumerate(second):
                found[row, column] = structural_similarity(
                    image,
                    reference,
                    data_range=255,
                    gaussian_weights=True,
                    sigma=_SIGMA,
                    use_sample_covariance=False,
                )
        return found


def _luminance(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Luminance (ITU-R 601) of pictures [size, size] each."""
    return [np.asarray(Image.fromarray(image).convert("L")) for image in resize(images, _SIZE)]

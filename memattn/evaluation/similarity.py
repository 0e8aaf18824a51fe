"""Distance in pixels between generated and training images."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Images = Tensor | NDArray[np.uint8] | Sequence[Image.Image | NDArray[np.uint8]]


@dataclass(frozen=True)
class Nearest:
    """The nearest training image of each image.

    Attributes:
        indices: Index into the training images [B], int64.
        distances: RMSE to it [B], float32, in pixel units of [0, 1].
    """

    indices: Tensor
    distances: Tensor


def rmse(images: Images, training: Images, mask: NDArray[np.bool_] | None = None) -> Tensor:
    """Root mean squared pixel difference of every image to every training image.

        d[b, m] = sqrt(mean over pixels and colours of (image_b - training_m)^2)

    Args:
        images: Generated images: a list of PIL images, or [B, height, width, 3] as uint8 or as
            floats in [0, 1].
        training: Training images of the same size, likewise, M of them.
        mask: The pixels that count, bool [height, width]; None for all.

    Returns:
        Distances [B, M], float32, between 0 (equal) and 1 (black against white).

    Raises:
        ValueError: If sizes differ, floats leave [0, 1], or the mask is empty or of another size.
    """
    left, right = _pixels(images), _pixels(training)
    if left.shape[1:] != right.shape[1:]:
        raise ValueError(
            f"got images of {tuple(left.shape[1:])} and training images of "
            f"{tuple(right.shape[1:])}, expected one size"
        )
    if mask is not None:
        chosen = torch.as_tensor(mask)
        if chosen.dtype != torch.bool or chosen.shape != left.shape[1:3] or not chosen.any():
            raise ValueError(
                f"got a mask of {tuple(chosen.shape)} {chosen.dtype} with "
                f"{int(chosen.sum())} pixels set, expected bool {tuple(left.shape[1:3])} with at "
                "least one"
            )
        left, right = left[:, chosen], right[:, chosen]
    left, right = left.flatten(1), right.flatten(1)
    # Through a product of matrices, equal images would come out some 1e-4 apart.
    distances = torch.cdist(left, right, compute_mode="donot_use_mm_for_euclid_dist")
    return distances / math.sqrt(left.shape[1])


def nearest(images: Images, training: Images) -> Nearest:
    """The nearest training image of each image by RMSE.

    Args:
        images: Generated images, as for `rmse`.
        training: Training images, as for `rmse`, at least one.

    Returns:
        Indices and distances; of equal distances the lowest index.

    Raises:
        ValueError: If there is no training image, or as `rmse` does.
    """
    if len(training) == 0:
        raise ValueError("got no training images, expected at least one")
    distances = rmse(images, training)
    smallest = distances.amin(dim=1)
    indices = (distances == smallest[:, None]).int().argmax(dim=1)
    return Nearest(indices=indices, distances=smallest)


def _pixels(images: Images) -> Tensor:
    """Images as float32 [B, height, width, 3] in [0, 1]."""
    if isinstance(images, Tensor):
        pixels = images.detach().cpu()
    elif isinstance(images, np.ndarray):
        pixels = torch.from_numpy(images)
    else:
        arrays = [
            np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
            for image in images
        ]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) != 1:
            raise ValueError(f"got images of shapes {shapes}, expected one shape")
        pixels = torch.from_numpy(np.stack(arrays))
    if pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(
            f"got images of shape {tuple(pixels.shape)}, expected [B, height, width, 3]"
        )
    if pixels.dtype == torch.uint8:
        return pixels.float() / 255
    if not pixels.is_floating_point() or bool(((pixels < 0) | (pixels > 1)).any()):
        raise ValueError(
            f"got pixels of {pixels.dtype} outside uint8 and floats in [0, 1], expected one of them"
        )
    return pixels.float()

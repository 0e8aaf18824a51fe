"""Pictures of any size, brought to one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize(images: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """Brings pictures to one square size; one that has it already stays as it is.

    The whole picture is kept and its aspect ratio is not, so that a stretched copy is still a copy.
    Antialiased and bilinear, as torchvision's `Resize` does it.

    Args:
        images: Pictures [height, width, 3], uint8, of any sizes.
        size: Height and width to bring them to.

    Returns:
        Pictures [n, size, size, 3], uint8.

    Raises:
        ValueError: If there are no pictures, or one is not uint8 [height, width, 3].
    """
    if len(images) == 0:
        raise ValueError("got no images, expected at least one")
    for index, image in enumerate(images):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"got image {index} of shape {image.shape} and dtype {image.dtype}, expected uint8 "
                "[height, width, 3]"
            )
    resized = (
        Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in images
    )
    return np.stack([np.asarray(image) for image in resized])

"""What a measure of similarity is, and the most alike picture by one."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


class Measure(Protocol):
    """A similarity of pictures.

    Attributes:
        name: Its name in tables.
    """

    name: ClassVar[str]

    def similarities(
        self, images: Sequence[NDArray[np.uint8]], references: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Similarity of every image to every reference.

        Args:
            images: Pictures [height, width, 3], uint8, of any sizes.
            references: Pictures, likewise.

        Returns:
            Similarities [images, references]; higher is more alike, 1 is the same picture.

        Raises:
            ValueError: If there are no pictures, or one is not uint8 [height, width, 3].
        """


def nearest(
    measure: Measure,
    images: Sequence[NDArray[np.uint8]],
    references: Sequence[NDArray[np.uint8]],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The reference that is most like each image; of equals, the first.

    Args:
        measure: The measure.
        images: Pictures [height, width, 3], uint8, of any sizes.
        references: Pictures, likewise.

    Returns:
        Index of the reference and its similarity, both [images].

    Raises:
        ValueError: If there are no pictures, or one is not uint8 [height, width, 3].
    """
    similarities = measure.similarities(images, references)
    return similarities.argmax(axis=1), similarities.max(axis=1)

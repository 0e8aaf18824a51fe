"""Figures of single images, gathered by the group of their prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from memattn.evaluation.cases import Case

COPIES = "copies"  # of the figures the one that is counted and not averaged


@dataclass(frozen=True, eq=False)
class GroupFigures:
    """Figures of the images of one group that play one part in an evaluation.

    Attributes:
        group: The group's name.
        counted_as: "memorized", "ordinary" or "neither".
        images: Number of images.
        means: Name of a figure to its mean; of copies their share.
    """

    group: str
    counted_as: str
    images: int
    means: dict[str, float]

    @property
    def copies(self) -> int:
        """How many of the images are copies, where that was found out."""
        return round(self.means[COPIES] * self.images)


def by_group(
    cases: Sequence[Case], figures: Mapping[str, NDArray[np.float64]]
) -> tuple[GroupFigures, ...]:
    """Means by group and by part in the evaluation, without the calibration.

    Args:
        cases: The cases, one per image.
        figures: Name to one figure per image [n].

    Returns:
        One for each group and part, in the order of their first case.
    """
    rows: dict[tuple[str, str], list[int]] = {}
    for row, case in enumerate(cases):
        if case.role != "calibration":
            counted_as = "neither" if case.role == "other" else case.role
            rows.setdefault((case.group, counted_as), []).append(row)
    return tuple(
        GroupFigures(
            group=group,
            counted_as=counted_as,
            images=len(chosen),
            means={name: float(values[chosen].mean()) for name, values in figures.items()},
        )
        for (group, counted_as), chosen in rows.items()
    )

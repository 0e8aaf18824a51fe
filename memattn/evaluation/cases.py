"""What an evaluation is run on: prompts with their seeds, their part in it, and the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Role = Literal["calibration", "memorized", "ordinary", "other"]


@dataclass(frozen=True, eq=False)
class Case:
    """One prompt with the seed of its image.

    Attributes:
        prompt: The prompt.
        seed: Seed of its initial noise.
        role: "calibration" sets thresholds and does nothing else; "memorized" and "ordinary" are
            what detectors are measured on; "other" is scored and belongs to neither.
        group: What kind of prompt it is, for figures per group.
        showings: How often its picture was shown in training, None if nobody knows.
        true_mask: Region of the image that is copied [height, width], None if nobody knows.
    """

    prompt: str
    seed: int
    role: Role
    group: str
    showings: int | None = None
    true_mask: NDArray[np.bool_] | None = field(default=None, repr=False)


def rows_of(cases: Sequence[Case], role: Role) -> list[int]:
    """Positions of the cases that play a role, in order."""
    return [row for row, case in enumerate(cases) if case.role == role]


def compared(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The memorized and the ordinary cases, in order: what a control is run on."""
    return tuple(case for case in cases if case.role in ("memorized", "ordinary"))


def localisable(cases: Sequence[Case]) -> dict[int, NDArray[np.bool_]]:
    """Positions of the memorized cases whose copied region is known and is a part of the picture.

    Args:
        cases: The cases.

    Returns:
        Position to true mask [height, width], in order.
    """
    masks = {row: cases[row].true_mask for row in rows_of(cases, "memorized")}
    return {row: mask for row, mask in masks.items() if mask is not None and not mask.all()}

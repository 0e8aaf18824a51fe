"""Examples of a localiser's masks beside the truth: the best, the middle and the worst."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memattn.evaluation.cases import localisable
from memattn.evaluation.localisation import localisation
from memattn.evaluation.study import Study

_EACH = 2  # examples of each kind, where there are enough


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One memorized prompt with its mask.

    Attributes:
        kind: "best", "median" or "worst", by average precision.
        prompt: The prompt.
        seed: Seed of its initial noise.
        image: The generated image [height, width, 3], uint8.
        training_picture: Its training picture, None if unknown.
        true_mask: The copied region [height, width], bool.
        mask: The localiser's mask [h, w], float.
        average_precision: At the truth's resolution.
        iou: Intersection over union there.
        chance: Share of the picture that is copied: the average precision of guessing.
    """

    kind: str
    prompt: str
    seed: int
    image: NDArray[np.uint8]
    training_picture: NDArray[np.uint8] | None
    true_mask: NDArray[np.bool_]
    mask: NDArray[np.floating[Any]]
    average_precision: float
    iou: float
    chance: float


def exhibits(
    study: Study, localiser: str, training_pictures: Mapping[str, NDArray[np.uint8]]
) -> tuple[Exhibit, ...]:
    """Examples of one localiser, chosen by average precision and by nothing else.

    Args:
        study: What was found.
        localiser: Name of the localiser.
        training_pictures: Prompt to its training picture, where known.

    Returns:
        Two best, two in the middle and two worst, the best first; all there are, if fewer.
    """
    found = []
    regions = localisable(study.runs.cases)
    for row, region in regions.items():
        measured = localisation(study.runs.masks[localiser][row][None], region[None])
        found.append((measured.average_precision.value, measured.iou.value, row, measured))
    found.sort(key=lambda entry: (-entry[0], entry[2]))
    chosen = []
    for kind, place in _places(len(found)):
        precision, iou, row, measured = found[place]
        case = study.runs.cases[row]
        chosen.append(
            Exhibit(
                kind=kind,
                prompt=case.prompt,
                seed=case.seed,
                image=study.runs.images[row],
                training_picture=training_pictures.get(case.prompt),
                true_mask=regions[row],
                mask=study.runs.masks[localiser][row].numpy(),
                average_precision=precision,
                iou=iou,
                chance=measured.chance_average_precision,
            )
        )
    return tuple(chosen)


def _places(count: int) -> list[tuple[str, int]]:
    """Which of so many, ranked from best to worst, are shown, and as what; none twice."""
    each = min(_EACH, max(1, count // 3))
    middle = (count - each) // 2
    wanted = (
        [("best", place) for place in range(each)]
        + [("median", middle + place) for place in range(each)]
        + [("worst", count - each + place) for place in range(each)]
    )
    places: dict[int, str] = {}
    for kind, place in wanted:
        if 0 <= place < count:
            places.setdefault(place, kind)
    return [(kind, place) for place, kind in sorted(places.items())]

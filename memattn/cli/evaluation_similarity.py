"""How like the training images the generated ones are, and how well they follow their prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from memattn.cli.tables import table
from memattn.errors import InputError
from memattn.evaluation.groups import COPIES

if TYPE_CHECKING:
    from memattn.evaluation.groups import GroupFigures
    from memattn.evaluation.runs import Runs
    from memattn.evaluation.settings import Pipeline
    from memattn.evaluation.similarity import ClipScore, Measure
    from memattn.testbed import Manifest

ALIGNMENT = "alignment"


@dataclass(frozen=True, eq=False)
class Likeness:
    """What is measured on the images besides the detectors' scores.

    Attributes:
        references: Training images [height, width, 3]; empty if none are known.
        measures: Similarities to the nearest of them.
        clip: Agreement of image and prompt, or None.
    """

    references: tuple[NDArray[np.uint8], ...] = ()
    measures: "tuple[Measure, ...]" = ()
    clip: "ClipScore | None" = None

    def figures(self, runs: "Runs") -> dict[str, NDArray[np.float64]]:
        """One figure per image [n] for each measure, by its name."""
        from memattn.evaluation.similarity import nearest

        found = {
            f"nearest by {measure.name}": nearest(measure, runs.images, self.references)[1]
            for measure in self.measures
        }
        if self.clip is not None:
            prompts = [case.prompt for case in runs.cases]
            found[self.clip.name] = self.clip.scores(runs.images, prompts)
        return found


def read_images(folder: Path) -> tuple[NDArray[np.uint8], ...]:
    """The images in a folder and in the folders below it, in order of their names.

    Args:
        folder: The folder.

    Returns:
        Images [height, width, 3].

    Raises:
        InputError: If there is no such folder, no image in it, or an image is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"got --training-images {folder}, expected a folder.")
    Image.init()
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in Image.EXTENSION and path.is_file()
    )
    if not files:
        raise InputError(f"got --training-images {folder} without an image, expected at least one.")
    images = []
    for file in files:
        try:
            with Image.open(file) as image:
                images.append(np.asarray(image.convert("RGB")))
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"cannot read the training image {file}: {error}.") from error
    return tuple(images)


def testbed_figures(
    pipe: "Pipeline", manifest: "Manifest", data: Path, runs: "Runs"
) -> tuple[dict[str, NDArray[np.float64]], str]:
    """What is known exactly on a testbed, for every image [n].

    Args:
        pipe: The testbed's pipeline.
        manifest: Its manifest.
        data: Its folder.
        runs: Its runs.

    Returns:
        "copies": 1 where the image is a copy, of the prompt's own training picture or, of an
        ordinary prompt, of any; "alignment": share of the things that the prompt names which the
        testbed's classifier finds in the image, if the testbed has one. And a sentence on what to
        compare the alignment with, empty where there is none.
    """
    from memattn.testbed.attributes import ATTRIBUTES, alignment, load_classifier
    from memattn.testbed.copies import NO_COPY, copied
    from memattn.testbed.latents import reconstruct

    prompts = [case.prompt for case in runs.cases]
    images = np.stack(runs.images)
    found = copied(images, prompts, manifest, reconstruct(pipe.vae, manifest.pictures))
    own = {entry.prompt: row for row, entry in enumerate(manifest.shown)}
    figures = {
        COPIES: np.array(
            [
                index == own[prompt] if prompt in own else index != NO_COPY
                for prompt, index in zip(prompts, found.tolist(), strict=True)
            ],
            dtype=np.float64,
        )
    }
    if not (data / ATTRIBUTES).is_file():
        return figures, ""
    aligned = alignment(load_classifier(data), runs.images, prompts)
    figures[ALIGNMENT] = aligned.shares
    return figures, _alignment_note(manifest, aligned.by_chance)


def similarity_table(groups: "Sequence[GroupFigures]") -> str:
    """One line per group of images and part in the evaluation.

    Args:
        groups: Their figures, at least one.

    Returns:
        The table; copies are counted, everything else is a mean.
    """
    names = list(groups[0].means)
    lines = [
        [
            group.group.replace("_", " "),
            group.counted_as,
            str(group.images),
            *(_cell(group, name) for name in names),
        ]
        for group in groups
    ]
    header = ["group", "counted as", "images", *(name.replace(" by ", "\nby ") for name in names)]
    return table(header, lines, right=range(2, len(header)))


def _cell(group: "GroupFigures", name: str) -> str:
    """One group's figure."""
    if name == COPIES:
        return f"{group.copies} ({group.means[COPIES]:.0%})"
    return f"{group.means[name]:.2f}"


def _alignment_note(manifest: "Manifest", by_chance: float) -> str:
    """What to compare the alignment with."""
    accuracy = manifest.attribute_accuracy
    return (
        "Alignment is the share of the things that a prompt names which a classifier (recall "
        f"{accuracy['recall']:.2f}, precision {accuracy['precision']:.2f}) finds in its image; "
        f"with one another's prompts the same images get {by_chance:.2f}."
    )

"""The manifest: every prompt of the testbed with its group, its split and the truth about it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from memattn.errors import TestbedError
from memattn.testbed.groups import Group
from memattn.testbed.recipe import Recipe
from memattn.testbed.truth import CopyThresholds

Split = Literal["calibration", "reporting"]

DATA = Path(__file__).parent / "data"
MODEL, MANIFEST, PICTURES, MASKS = "model", "manifest.json", "pictures.png", "masks.png"

VERIFIED_COPIES = 3  # of the seeds that `testbed verify` samples
_TILE, _COLUMNS = 64, 24


@dataclass(frozen=True)
class Entry:
    """One prompt of the testbed.

    Attributes:
        prompt: The caption.
        group: "verbatim", "template", "ladder", "seen_once" or "ordinary".
        split: "calibration" (ordinary prompts that thresholds may be set on) or "reporting".
        training_image: Its training picture [64, 64, 3], uint8; of a template family, one of the
            pictures that were shown. None for ordinary prompts.
        true_mask: The region that is copied [64, 64]: the fixed region of a template, all of a
            verbatim picture, else None.
        copies: Of the sampled seeds, how many gave a copy; None for ordinary prompts.
        showings: How often its picture was shown in training; of a template, how often any picture
            of the family.
    """

    prompt: str
    group: Group
    split: Split
    training_image: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    true_mask: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    copies: int | None = None
    showings: int = 0

    @property
    def is_memorized(self) -> bool:
        """Whether the prompt is a verified copy: at least 3 of the 4 sampled seeds."""
        return self.copies is not None and self.copies >= VERIFIED_COPIES


@dataclass(frozen=True)
class Manifest:
    """All prompts of a testbed, and how the testbed was made.

    Attributes:
        entries: One per prompt.
        recipe: The recipe it was trained by.
        made_by: The command that makes it again, and the versions it ran with.
        thresholds: Distances below which a picture counts as a copy.
        rigid: Template prompts whose pictures did not vary outside the fixed region.
        false_copies: Ordinary prompts that gave a copy of some training picture from the first
            of the seeds that `testbed verify` samples, and from how many of them.
        attribute_accuracy: "recall", "precision" and "balanced_accuracy" of the classifier that
            measures prompt alignment; empty where there is none.
        files: SHA-256 of weights and pictures, by path below the testbed's folder; written by
            `save`.
    """

    entries: tuple[Entry, ...]
    recipe: Recipe
    made_by: dict[str, str]
    thresholds: CopyThresholds
    rigid: tuple[str, ...] = ()
    false_copies: dict[str, int] = field(default_factory=dict)
    attribute_accuracy: dict[str, float] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict, compare=False)

    def select(self, *groups: Group, split: Split | None = None) -> tuple[Entry, ...]:
        """The entries of some groups, in order, of one split or of both."""
        return tuple(
            entry
            for entry in self.entries
            if entry.group in groups and split in (None, entry.split)
        )

    @cached_property
    def shown(self) -> tuple[Entry, ...]:
        """The entries that have a training picture."""
        return tuple(entry for entry in self.entries if entry.training_image is not None)

    @property
    def pictures(self) -> NDArray[np.uint8]:
        """Training pictures of `shown` [n, 64, 64, 3]."""
        pictures = (entry.training_image for entry in self.shown)
        return np.stack([picture for picture in pictures if picture is not None])

    def with_copies(self, copies: dict[str, int]) -> "Manifest":
        """The manifest with the number of copies of each shown prompt filled in."""
        entries = (
            replace(entry, copies=copies.get(entry.prompt, entry.copies)) for entry in self.entries
        )
        return replace(self, entries=tuple(entries))

    def save(self, data: Path) -> None:
        """Writes manifest.json, pictures.png and masks.png into a testbed's folder."""
        nowhere = np.zeros((_TILE, _TILE), bool)
        masks = [nowhere if e.true_mask is None else e.true_mask for e in self.shown]
        _save_tiles(data / PICTURES, list(self.pictures))
        _save_tiles(data / MASKS, [mask.astype(np.uint8) * 255 for mask in masks])
        content = {
            "recipe": asdict(self.recipe),
            "made_by": self.made_by,
            "thresholds": asdict(self.thresholds),
            "rigid": self.rigid,
            "false_copies": self.false_copies,
            "attribute_accuracy": self.attribute_accuracy,
            "files": hash_files(data),
            "entries": [
                {"prompt": e.prompt, "group": e.group, "split": e.split}
                | ({} if e.copies is None else {"copies": e.copies, "showings": e.showings})
                for e in self.entries
            ],
        }
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (data / MANIFEST).write_text(text + "\n", encoding="utf-8")


def load_manifest(data: Path = DATA) -> Manifest:
    """Reads a testbed's manifest, the packaged one by default.

    Args:
        data: The testbed's folder.

    Returns:
        The manifest, with training pictures and true masks.

    Raises:
        TestbedError: If the folder holds no readable manifest, or other pictures than it names.
    """
    try:
        content = json.loads((data / MANIFEST).read_text(encoding="utf-8"))
        check_files(data, content["files"], (PICTURES, MASKS))
        shown = sum("copies" in item for item in content["entries"])
        pictures = iter(_load_tiles(data / PICTURES, shown))
        masks = iter(_load_tiles(data / MASKS, shown))
        return Manifest(
            entries=tuple(_entry(item, pictures, masks) for item in content["entries"]),
            recipe=Recipe(**content["recipe"] | {"ladder": tuple(content["recipe"]["ladder"])}),
            made_by=content["made_by"],
            thresholds=CopyThresholds(**content["thresholds"]),
            rigid=tuple(content["rigid"]),
            false_copies=dict(content["false_copies"]),
            attribute_accuracy=content["attribute_accuracy"],
            files=content["files"],
        )
    except FileNotFoundError as error:
        raise TestbedError(f"{data} holds no testbed: there is no {MANIFEST}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TestbedError(f"{data} holds a damaged testbed: {error}") from error


def hash_files(data: Path) -> dict[str, str]:
    """SHA-256 of a testbed's weights and pictures, by path below its folder."""
    files = [*data.rglob("*.safetensors"), data / PICTURES, data / MASKS]
    return {
        file.relative_to(data).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(files)
    }


def check_files(data: Path, digests: dict[str, str], names: Iterable[str]) -> None:
    """Refuses files that are missing or not the ones whose digests are given."""
    for name in names:
        file = data / name
        if not file.exists():
            raise TestbedError(f"the testbed's file {file} is missing")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digests[name]:
            raise TestbedError(f"the testbed's file {file} does not have the manifest's SHA-256")


def _entry(
    item: dict[str, Any],
    pictures: Iterator[NDArray[np.uint8]],
    masks: Iterator[NDArray[np.uint8]],
) -> Entry:
    if "copies" not in item:
        return Entry(item["prompt"], item["group"], item["split"])
    picture, mask = next(pictures), next(masks) > 127
    return Entry(
        prompt=item["prompt"],
        group=item["group"],
        split=item["split"],
        training_image=picture,
        true_mask=mask if mask.any() else None,
        copies=item["copies"],
        showings=item["showings"],
    )


def _save_tiles(file: Path, tiles: Sequence[NDArray[np.uint8]]) -> None:
    """Writes equal tiles as one sheet, row by row."""
    rows = -(-len(tiles) // _COLUMNS)
    sheet = np.zeros((rows * _TILE, _COLUMNS * _TILE, *tiles[0].shape[2:]), np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, _COLUMNS)
        sheet[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE] = tile
    Image.fromarray(sheet).save(file, optimize=True)


def _load_tiles(file: Path, count: int) -> list[NDArray[np.uint8]]:
    sheet = np.asarray(Image.open(file))
    spots = (divmod(index, _COLUMNS) for index in range(count))
    return [
        sheet[r * _TILE : (r + 1) * _TILE, c * _TILE : (c + 1) * _TILE].copy() for r, c in spots
    ]

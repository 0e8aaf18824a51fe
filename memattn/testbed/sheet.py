"""`memattn testbed samples`: a sheet of samples beside their training pictures, to look at."""

from pathlib import Path

import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from memattn.testbed.groups import GROUPS
from memattn.testbed.manifest import Manifest
from memattn.testbed.sampling import sample_pictures
from memattn.whole import whole_file

_PROMPTS = 8  # of each group
_SEEDS = (0, 1)
_SCALE = 2
_GAP = 8


def save_sheet(pipeline: StableDiffusionPipeline, manifest: Manifest, file: Path) -> None:
    """Draws the sheet: per group, a row of training pictures (where there are any), then samples.

    Args:
        pipeline: The testbed's pipeline.
        manifest: Its prompts.
        file: The PNG to write.
    """
    rows: list[NDArray[np.uint8]] = []
    for group in filter(manifest.select, GROUPS):
        entries = manifest.select(group)[:_PROMPTS]
        pictures = [e.training_image for e in entries if e.training_image is not None]
        if pictures:
            rows.append(_row(np.stack(pictures)))
        prompts = [entry.prompt for entry in entries]
        rows += [_row(sample_pictures(pipeline, prompts, seed, group)) for seed in _SEEDS]
        rows.append(np.full((_GAP, rows[-1].shape[1], 3), 255, np.uint8))
    sheet = Image.fromarray(np.concatenate(rows[:-1]))
    size = (sheet.width * _SCALE, sheet.height * _SCALE)
    with whole_file(file) as fresh:
        sheet.resize(size, Image.Resampling.NEAREST).save(fresh, format="PNG")


def _row(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate(list(pictures), axis=1)

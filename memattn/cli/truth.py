"""The testbed's truth: which training image a generated one is nearest to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memattn.report import NearestImage

if TYPE_CHECKING:
    from memattn.evaluation.settings import Pipeline
    from memattn.testbed import Entry, Manifest

OWN_PICTURE = "this prompt's own"


def nearest_training_images(
    pipe: "Pipeline",
    prompts: Sequence[str],
    images: Sequence[NDArray[np.uint8]],
    manifest: "Manifest",
) -> tuple[NearestImage, ...]:
    """The nearest of the manifest's training pictures, by the testbed's own measure of a copy.

    A picture is compared as the autoencoder gives it back, since that is all a latent model can
    reproduce, and a template inside its fixed region only, since the rest differed from showing to
    showing. Nearest is the one whose distance is smallest in units of its copy threshold.

    Args:
        pipe: The pipeline that made the images.
        prompts: One prompt per image.
        images: Generated images [height, width, 3].
        manifest: The testbed's manifest.

    Returns:
        One per image.
    """
    from memattn.testbed.copies import copy_limits, distances
    from memattn.testbed.latents import reconstruct

    shown, pictures = manifest.shown, manifest.pictures
    found = []
    rows = distances(np.stack(images), manifest, reconstruct(pipe.vae, pictures))
    for row, prompt in zip(rows, prompts, strict=True):
        limits = copy_limits(prompt, manifest)
        index = int((row / limits).argmin())
        found.append(
            NearestImage(
                image=pictures[index],
                distance=float(row[index]),
                copy_threshold=float(limits[index]),
                name=_name(shown[index], prompt),
            )
        )
    return tuple(found)


def _name(entry: "Entry", prompt: str) -> str:
    """What the report calls a training image beside a sample of `prompt`."""
    if entry.prompt == prompt:
        return OWN_PICTURE
    return f"{entry.group.replace('_', ' ')}: {entry.prompt}"

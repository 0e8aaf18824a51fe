"""The testbed's truth: which training image a generated one is nearest to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memattn.report import NearestImage

if TYPE_CHECKING:
    from memattn.evaluation.sampling import Pipeline
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
    from memattn.testbed.latents import reconstruct
    from memattn.testbed.verification import copy_threshold, relative_distances

    shown, pictures = manifest.shown, manifest.pictures
    relative = relative_distances(np.stack(images), manifest, reconstruct(pipe.vae, pictures))
    found = []
    for row, index in enumerate(relative.argmin(axis=1).tolist()):
        threshold = copy_threshold(shown[index], manifest)
        found.append(
            NearestImage(
                image=pictures[index],
                distance=float(relative[row, index]) * threshold,
                copy_threshold=threshold,
                name=_name(shown[index], prompts[row]),
            )
        )
    return tuple(found)


def _name(entry: "Entry", prompt: str) -> str:
    """What the report calls a training image beside a sample of `prompt`."""
    if entry.prompt == prompt:
        return OWN_PICTURE
    return f"{entry.group.replace('_', ' ')}: {entry.prompt}"

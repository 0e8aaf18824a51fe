"""The testbed's truth: which training image a generated one is nearest to."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memattn.report import NearestImage

if TYPE_CHECKING:
    from memattn.evaluation.sampling import Pipeline
    from memattn.testbed import Entry, Manifest


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
    from memattn import testbed
    from memattn.testbed.latents import reconstruct

    shown = manifest.shown
    pictures = np.stack(
        [entry.training_image for entry in shown if entry.training_image is not None]
    )
    is_template = np.array([entry.group == "template" for entry in shown])
    limits = np.where(is_template, manifest.thresholds.inside, manifest.thresholds.whole)
    stack = np.stack(images)
    distances = np.stack(
        [
            testbed.distance(stack, target, entry.true_mask if template else None)
            for entry, target, template in zip(
                shown, reconstruct(pipe.vae, pictures), is_template, strict=True
            )
        ],
        axis=1,
    )  # [images, shown]
    nearest = (distances / limits).argmin(axis=1)
    return tuple(
        NearestImage(
            image=pictures[index],
            distance=float(distances[row, index]),
            copy_threshold=float(limits[index]),
            name=_name(shown[index], prompts[row]),
        )
        for row, index in enumerate(nearest.tolist())
    )


def _name(entry: "Entry", prompt: str) -> str:
    """What the report calls a training image beside a sample of `prompt`."""
    if entry.prompt == prompt:
        return "this prompt's own"
    return f"{entry.group.replace('_', ' ')}: {entry.prompt}"

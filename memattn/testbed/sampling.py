"""Samples pictures from a testbed pipeline at the testbed's own settings."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from tqdm import tqdm

STEPS = 50
GUIDANCE_SCALE = 7.5
_BATCH = 8


def sample_pictures(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seed: int, progress: str
) -> NDArray[np.uint8]:
    """Samples one picture per prompt: DDIM, 50 steps, guidance 7.5.

    Args:
        pipeline: A testbed pipeline.
        prompts: Prompts.
        seed: Every prompt starts from the noise of this seed.
        progress: Label of the progress bar.

    Returns:
        Pictures [n, 64, 64, 3], uint8.
    """
    pipeline.set_progress_bar_config(disable=True)
    parts = []
    with tqdm(total=len(prompts), desc=progress, unit="image") as bar:
        for start in range(0, len(prompts), _BATCH):
            batch = list(prompts[start : start + _BATCH])
            generators = [torch.Generator().manual_seed(seed) for _ in batch]
            images = pipeline(
                batch,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE_SCALE,
                generator=generators,
                output_type="np",
            ).images
            parts.append(np.rint(images * 255).astype(np.uint8))
            bar.update(len(batch))
    return np.concatenate(parts)

"""Generate a batch of images and record the run, so that no sample depends on its batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memattn.evaluation.settings import Pipeline, RunSettings
from memattn.recording import record as record_run
from memattn.records import FIELDS, Field, Record


@dataclass(frozen=True, eq=False)
class Samples:
    """What `sample` made.

    Attributes:
        images: One image per prompt [B, height, width, 3], uint8; None if none were made.
        record: The record of the run, one row per prompt.
    """

    images: NDArray[np.uint8] | None
    record: Record


def sample(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    settings: RunSettings,
    fields: Sequence[Field] = FIELDS,
    first_call_only: bool = False,
    images: bool = True,
    on_call: Callable[[int], None] | None = None,
) -> Samples:
    """Generate one image per prompt in one pipeline call and record it.

    Every sample has its own generator, seeded with its own seed and drawn from on the CPU, so that
    neither its batch nor the device changes its noise. What is left is the rounding of the model's
    own matrix products, which may differ between batch shapes.

    Args:
        pipe: A Stable Diffusion pipeline.
        prompts: Prompts, at least one.
        seeds: One seed per prompt.
        settings: How to generate.
        fields: What to record.
        first_call_only: Stop the run after the first denoiser call, for detectors with
            `one_call`. No images are made, and `token_maps`, which belong to the last call, are
            left out.
        images: Make the images; without them the decoder's time is saved.
        on_call: Called after every denoiser call with the number of calls of the run.

    Returns:
        Images in the order of the prompts, and the record.

    Raises:
        ValueError: If there are no prompts, not as many seeds as prompts, or the settings name
            another scheduler than the pipeline's.
        RecordingError: If the run could not be recorded whole.
    """
    if len(prompts) == 0:
        raise ValueError("got no prompts, expected at least one")
    if len(seeds) != len(prompts):
        raise ValueError(f"got {len(seeds)} seeds, expected one for each of {len(prompts)} prompts")
    settings = settings.resolve(pipe)
    if first_call_only:
        fields = [name for name in fields if name != "token_maps"]
    decode = images and not first_call_only
    with _own_progress_bar_off(pipe), record_run(pipe, fields=tuple(fields)) as run:
        output = pipe(
            list(prompts),
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            height=settings.height,
            width=settings.width,
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            output_type="pil" if decode else "latent",
            callback_on_step_end=_on_call_end(first_call_only, on_call),
        )
    if not decode:
        return Samples(None, run)
    return Samples(np.stack([np.asarray(i.convert("RGB")) for i in output.images]), run)


def _on_call_end(
    first_call_only: bool, on_call: Callable[[int], None] | None
) -> Callable[[Pipeline, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]:
    """A pipeline callback that reports progress, and stops the run if only one call is wanted."""

    def on_call_end(
        pipe: Pipeline, call: int, timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        if on_call is not None:
            on_call(1 if first_call_only else pipe.num_timesteps)
        if first_call_only:
            pipe._interrupt = True  # diffusers' own switch for stopping from a callback
        return tensors

    return on_call_end


@contextmanager
def _own_progress_bar_off(pipe: Pipeline) -> Iterator[None]:
    """Silence the pipeline's bar, and put its settings back."""
    before = dict(getattr(pipe, "_progress_bar_config", {}))
    pipe.set_progress_bar_config(**{**before, "disable": True})
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)

"""Generate images for many prompts and record the runs, so that no sample depends on its batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from memattn.evaluation.settings import Pipeline, RunSettings
from memattn.recording import record as record_run
from memattn.records import FIELDS, Field, Record

__all__ = ["Pipeline", "RunSettings", "Samples", "sample"]


@dataclass(frozen=True)
class Samples:
    """What `sample` made.

    Attributes:
        images: One image per prompt; None if none were made.
        record: The record of all runs, one row per prompt.
    """

    images: tuple[Image.Image, ...] | None
    record: Record


def sample(
    pipe: Pipeline,
    prompts: Sequence[str],
    *,
    seeds: Sequence[int],
    settings: RunSettings,
    batch_size: int = 8,
    fields: Sequence[Field] = FIELDS,
    first_call_only: bool = False,
    images: bool = True,
    on_first_batch: Callable[[Record], None] | None = None,
    progress: bool = True,
    label: str = "sampling",
) -> Samples:
    """Generate one image per prompt and record it.

    Every sample has its own generator, seeded with its own seed and drawn from on the CPU, so that
    neither its batch nor the device changes its noise. What is left is the rounding of the model's
    own matrix products, which may differ between batch shapes.

    Args:
        pipe: A Stable Diffusion pipeline.
        prompts: Prompts, at least one.
        seeds: One seed per prompt.
        settings: How to generate.
        batch_size: Prompts per pipeline call.
        fields: What to record.
        first_call_only: Stop each run after the first denoiser call, for detectors with
            `one_call`. No images are made, and `token_maps`, which belong to the last call, are
            left out.
        images: Make the images; without them the decoder's time is saved.
        on_first_batch: Called with the record of the first batch; what it raises ends the run
            before the other batches.
        progress: Show a progress bar over denoiser calls on stderr, with the time left.
        label: What the bar is called.

    Returns:
        Images in the order of the prompts, and the record.

    Raises:
        ValueError: If there are no prompts, not as many seeds as prompts, no room in a batch, or
            the settings name another scheduler than the pipeline's.
        RecordingError: If a run could not be recorded whole.
    """
    if len(prompts) == 0:
        raise ValueError("got no prompts, expected at least one")
    if len(seeds) != len(prompts):
        raise ValueError(f"got {len(seeds)} seeds, expected one for each of {len(prompts)} prompts")
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, expected at least 1")
    settings = settings.resolve(pipe)
    if first_call_only:
        fields = [name for name in fields if name != "token_maps"]
    starts = range(0, len(prompts), batch_size)
    decode = images and not first_call_only
    made: list[Image.Image] = []
    records: list[Record] = []
    with (
        _own_progress_bar_off(pipe),
        tqdm(desc=label, unit="call", disable=not progress) as bar,
    ):
        on_call_end = _on_call_end(bar, len(starts), first_call_only)
        for start in starts:
            batch = slice(start, start + batch_size)
            with record_run(pipe, fields=tuple(fields)) as run:
                output = pipe(
                    list(prompts[batch]),
                    num_inference_steps=settings.steps,
                    guidance_scale=settings.guidance_scale,
                    height=settings.height,
                    width=settings.width,
                    generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds[batch]],
                    output_type="pil" if decode else "latent",
                    callback_on_step_end=on_call_end,
                )
            records.append(run)
            if decode:
                made.extend(output.images)
            if on_first_batch is not None and len(records) == 1:
                on_first_batch(run)
    return Samples(images=tuple(made) if decode else None, record=Record.concatenate(records))


def _on_call_end(
    bar: "tqdm[Any]", batches: int, first_call_only: bool
) -> Callable[[Pipeline, int, Tensor, dict[str, Tensor]], dict[str, Tensor]]:
    """A pipeline callback that moves the bar, and stops the run if only one call is wanted."""

    def on_call_end(
        pipe: Pipeline, call: int, timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        bar.total = batches * (1 if first_call_only else pipe.num_timesteps)
        bar.update()
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

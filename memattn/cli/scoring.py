"""Samples prompts and scores them with every detector that can read the model."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from memattn.detectors import DETECTORS
from memattn.evaluation.sampling import Pipeline, RunSettings, Samples, sample
from memattn.evaluation.scoring import Scores, needed_fields, score_readable

if TYPE_CHECKING:
    from memattn.records import Record


def sample_and_score(
    pipe: Pipeline,
    prompts: Sequence[str],
    settings: RunSettings,
    arguments: argparse.Namespace,
    *,
    images: bool,
) -> tuple[Samples, Scores]:
    """Generate one image per prompt, and score it.

    A detector that cannot read the model is left out, and named on stderr after the first batch.

    Args:
        pipe: The pipeline.
        prompts: The prompts.
        settings: How to generate, resolved.
        arguments: Parsed options of `add_model_options`.
        images: Whether the images are wanted.

    Returns:
        Samples, and the scores of the detectors that can read them.

    Raises:
        RecordError: If no detector can read the model.
    """
    said: set[str] = set()

    def say(reasons: Mapping[str, str]) -> None:
        for detector, reason in reasons.items():
            if detector not in said:
                tqdm.write(f"{unreadable(detector, reason)}", file=sys.stderr)
        said.update(reasons)

    def on_first_batch(record: "Record") -> None:
        say(score_readable(record, DETECTORS).reasons)

    samples = sample(
        pipe,
        prompts,
        seeds=range(arguments.seed, arguments.seed + len(prompts)),
        settings=settings,
        batch_size=arguments.batch_size,
        fields=needed_fields(DETECTORS),
        images=images,
        on_first_batch=on_first_batch,
        label=f"{len(prompts)} prompts, {settings.steps} steps",
    )
    scores = score_readable(samples.record, DETECTORS)
    say(scores.reasons)
    return samples, scores


def unreadable(detector: str, reason: str) -> str:
    """The sentence on a detector that is left out."""
    return f"{detector} cannot read this model: {reason}"

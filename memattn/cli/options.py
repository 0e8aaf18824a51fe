"""Command-line options that several commands share, and what they mean."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from memattn.errors import InputError

if TYPE_CHECKING:
    from memattn.evaluation.settings import Pipeline, RunSettings

TESTBED = "testbed"


def positive_int(text: str) -> int:
    """An argparse type: a whole number from 1 up."""
    return _whole(text, 1)


def seed(text: str) -> int:
    """An argparse type: a whole number from 0 up, as numpy's generators take it."""
    return _whole(text, 0)


def guidance_scale(text: str) -> float:
    """An argparse type: a guidance weight at which guidance is on."""
    value = _number(text)
    # Up to 1 the pipeline makes no unconditional prediction, and there is no gap to measure.
    if not 1.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(
            f"got {text}, expected more than 1: detectors need guidance"
        )
    return value


def share(text: str) -> float:
    """An argparse type: a share between 0 and 1."""
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number between 0 and 1")
    return value


def _whole(text: str, least: int) -> int:
    """A whole number from `least` up."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from {least} up")
    return value


def _number(text: str) -> float:
    """A number; text that is none fails every comparison, and so its option's own check."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose the model and how it generates."""
    parser.add_argument(
        "--model",
        default=TESTBED,
        metavar="PATH",
        help="folder of a Stable Diffusion checkpoint in diffusers' layout, or of a trained "
        "testbed, or 'testbed' for the one that comes with memattn (default)",
    )
    parser.add_argument("--steps", type=positive_int, default=50, help="inference steps (50)")
    parser.add_argument(
        "--guidance", type=guidance_scale, default=7.5, help="guidance scale, above 1 (7.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image (0)")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="images at a time (8)")
    parser.add_argument(
        "--device", help="torch device, e.g. cuda:0 (a CUDA device if there is one, else cpu)"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        default="float32",
        help="dtype of the weights (float32)",
    )


def add_prompt_file(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """The option that names a prompt file."""
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        required=required,
        help="UTF-8 text file with one prompt per line",
    )


def run_settings(arguments: argparse.Namespace, pipe: "Pipeline") -> "RunSettings":
    """The settings that the model options ask for, resolved against the pipeline.

    Args:
        arguments: Parsed options of `add_model_options`.
        pipe: The pipeline that will run.

    Returns:
        The settings.

    Raises:
        InputError: If the pipeline's scheduler cannot take that many steps.
    """
    from memattn.evaluation.settings import RunSettings

    config = pipe.scheduler.config
    # Spaced from the leading end, the steps are moved up by the offset and must stay in the range.
    leading = config.get("timestep_spacing", "leading") == "leading"
    most = config["num_train_timesteps"] - (config.get("steps_offset", 0) if leading else 0)
    if arguments.steps > most:
        raise InputError(
            f"got --steps {arguments.steps}, expected at most {most}: the model's "
            f"{type(pipe.scheduler).__name__} has no more noise levels."
        )
    return RunSettings(steps=arguments.steps, guidance_scale=arguments.guidance).resolve(pipe)

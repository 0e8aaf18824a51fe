"""The controls of an evaluation: models that have memorized nothing, or the scores of such."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from memattn.errors import InputError

if TYPE_CHECKING:
    from memattn.evaluation.scores_file import StoredScores
    from memattn.evaluation.settings import Pipeline, RunSettings
    from memattn.evaluation.study import Study

RANDOM_WEIGHTS = "random weights"
WITHOUT_DUPLICATES = "without duplicates"
# Beside a testbed's weights: the scores of its prompts by a model trained without duplicates.
STORED = "without-duplicates.csv"
STORED_WITH = "its scores are stored for the testbed's own steps and guidance, and --seed 0"


def parse_controls(given: Sequence[str]) -> dict[str, Path]:
    """The values of `--control`, checked before anything is loaded.

    Args:
        given: NAME=PATH each.

    Returns:
        Name to path.

    Raises:
        InputError: If one is no NAME=PATH, a name comes twice or is taken, or a path does not
            exist.
    """
    controls: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        name = name.strip()
        if not (name and equals and path):
            raise InputError(f"got --control {text!r}, expected NAME=PATH.")
        if _slug(name) in map(_slug, (RANDOM_WEIGHTS, *controls)):
            raise InputError(f"got a second control named {name!r}, expected another name.")
        if not Path(path).exists():
            raise InputError(
                f"got the control {path}, which does not exist, expected the folder of a "
                "checkpoint or of a testbed, or a scores.csv."
            )
        controls[name] = Path(path)
    return controls


def load_control(
    path: Path, settings: "RunSettings", arguments: argparse.Namespace
) -> "Pipeline | StoredScores":
    """A control from a checkpoint's folder, a testbed's folder or a file of scores.

    Args:
        path: The folder or file.
        settings: How the model under test generates, resolved.
        arguments: Parsed options of `add_model_options`.

    Returns:
        Pipeline or scores.

    Raises:
        InputError: If it can be neither, or the pipeline cannot run with these settings.
    """
    from memattn.cli.pipelines import load_pipeline
    from memattn.evaluation.scores_file import read_scores

    if path.is_file():
        return read_scores(path)
    pipe = load_pipeline(str(path), device=arguments.device, dtype=arguments.dtype)
    try:
        settings.resolve(pipe)
    except ValueError as error:
        raise InputError(f"cannot use the control {path}: {error}.") from error
    return pipe


def stored_control(data: Path, settings: "RunSettings", first_seed: int) -> "StoredScores | None":
    """A testbed's own stored control, where it has one that was made with the settings at hand.

    Args:
        data: The testbed's folder.
        settings: How the model under test generates, resolved.
        first_seed: Seed of the testbed's first prompt.

    Returns:
        The scores, or None.
    """
    from memattn.evaluation.scores_file import read_scores
    from memattn.testbed.sampling import GUIDANCE_SCALE, STEPS

    usual = (settings.steps, settings.guidance_scale, first_seed) == (STEPS, GUIDANCE_SCALE, 0)
    return read_scores(data / STORED) if usual and (data / STORED).is_file() else None


def write_controls(folder: Path, study: "Study") -> None:
    """Write the scores of every control to a file of its own, which `--control` takes again.

    Args:
        folder: Where the files are to stand; made here.
        study: What was found.
    """
    import torch

    from memattn.evaluation.cases import rows_of
    from memattn.evaluation.scores_file import write_scores

    cases = study.runs.cases
    rows = [*rows_of(cases, "memorized"), *rows_of(cases, "ordinary")]
    folder.mkdir()
    for name, of_control in study.control_scores.items():
        scores = {detector: torch.cat(parts) for detector, parts in of_control.items()}
        write_scores(folder / f"{_slug(name)}.csv", [cases[row] for row in rows], scores)


def _slug(name: str) -> str:
    """A control's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")

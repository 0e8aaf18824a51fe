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
    from memattn.evaluation.study import Control, Study

RANDOM_WEIGHTS = "random weights"
WITHOUT_DUPLICATES = "without duplicates"
# Beside a testbed's weights: the scores of its prompts by a model trained without duplicates.
STORED = "without-duplicates.csv"


def parse_controls(given: Sequence[str]) -> dict[str, Path]:
    """The values of `--control`, checked before anything is loaded.

    Args:
        given: NAME=PATH each.

    Returns:
        Name to path.

    Raises:
        InputError: If one is no NAME=PATH, a name gives no file name or one that is taken, or a
            path does not exist.
    """
    controls: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        name = name.strip()
        if not (name and equals and path):
            raise InputError(f"got --control {text!r}, expected NAME=PATH.")
        if not slug(name):
            raise InputError(
                f"got a control named {name!r}, expected a letter or a digit in its name."
            )
        if slug(name) in map(slug, (RANDOM_WEIGHTS, *controls)):
            raise InputError(f"got a second control named {name!r}, expected another name.")
        if not Path(path).exists():
            raise InputError(
                f"got the control {path}, which does not exist, expected the folder of a "
                "checkpoint or of a testbed, or a scores.csv."
            )
        controls[name] = Path(path)
    return controls


def load_control(
    path: Path, arguments: argparse.Namespace, *, settings: "RunSettings", model: str
) -> "Control":
    """A control from a checkpoint's folder, a testbed's folder or a file of scores.

    A folder is opened once on the CPU, to refuse it before hours of sampling and not after.

    Args:
        path: The folder or file.
        arguments: Parsed options of `add_model_options`.
        settings: How the model under test generates, resolved.
        model: `model_hash` of the model under test.

    Returns:
        The scores, or what loads the pipeline.

    Raises:
        InputError: If it can be neither, or the pipeline cannot run with these settings, or is the
            model under test.
    """
    from memattn.cli.pipelines import load_pipeline
    from memattn.evaluation.scores_file import read_scores
    from memattn.evaluation.weights import model_hash

    if path.is_file():
        return read_scores(path)
    pipe = load_pipeline(str(path), device="cpu", dtype=arguments.dtype)
    try:
        settings.resolve(pipe)
    except ValueError as error:
        raise InputError(f"cannot use the control {path}: {error}.") from error
    if model_hash(pipe) == model:
        raise InputError(
            f"got the control {path}, which is the model under test itself, expected another one."
        )

    def load() -> "Pipeline":
        return load_pipeline(str(path), device=arguments.device, dtype=arguments.dtype)

    return load


def stored_control(data: Path) -> "StoredScores | None":
    """A testbed's own stored control, where it has one.

    Args:
        data: The testbed's folder.

    Returns:
        The scores, or None.

    Raises:
        InputError: If the file is damaged.
    """
    from memattn.evaluation.scores_file import read_scores

    return read_scores(data / STORED) if (data / STORED).is_file() else None


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
        if not of_control:
            continue  # it has no scores by the detectors that can read the model
        write_scores(
            folder / f"{slug(name)}.csv",
            [cases[row] for row in rows],
            {detector: torch.cat(parts) for detector, parts in of_control.items()},
            model=study.control_models[name],
            settings=study.settings,
        )


def slug(name: str) -> str:
    """A control's name as a file name, empty if nothing is left of it."""
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")

"""Set thresholds for a model from prompts that it has not memorized.

Generates one image per prompt, scores each with every detector, and writes the score that only the
wanted share of such prompts exceeds. A calibration belongs to one model and its settings.
"""

import argparse
from pathlib import Path

from memattn.cli.options import add_model_options, add_prompt_file, run_settings
from memattn.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model_options(parser)
    add_prompt_file(parser, required=True)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="calibration file to write (JSON)"
    )
    parser.add_argument(
        "--false-positive-rate",
        type=_rate,
        default=0.01,
        metavar="RATE",
        help="share of ordinary prompts that a threshold may flag (0.01, which takes 99 prompts)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Sample, score, write the calibration."""
    from memattn.cli.pipelines import load_pipeline
    from memattn.cli.prompts import read_prompts
    from memattn.cli.scoring import sample_and_score
    from memattn.cli.tables import table
    from memattn.cli.targets import check_output
    from memattn.evaluation.calibration import calibrate, model_hash
    from memattn.evaluation.scoring import ordinary_range

    prompts = read_prompts(arguments.prompts)
    _check_count(len(prompts), arguments.false_positive_rate)
    check_output(arguments.out, folder=False)
    pipe = load_pipeline(arguments.model, device=arguments.device, dtype=arguments.dtype)
    settings = run_settings(arguments, pipe)
    _, scores = sample_and_score(pipe, prompts, settings, arguments, images=False)
    calibration = calibrate(
        scores.values,
        model_hash=model_hash(pipe),
        settings=settings,
        false_positive_rate=arguments.false_positive_rate,
    )
    arguments.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    calibration.save(arguments.out)
    rows = []
    for name, values in scores.values.items():
        low, high = ordinary_range(values)
        rows.append([name, f"{low:.4g}", f"{high:.4g}", f"{calibration.thresholds[name]:.4g}"])
    print(table(["detector", "5 %", "95 %", "threshold"], rows, right=(1, 2, 3)))
    print(f"wrote {arguments.out}")


def _rate(text: str) -> float:
    """An argparse type: a share between 0 and 1."""
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"got {text}, expected a number between 0 and 1")
    return value


def _check_count(prompts: int, rate: float) -> None:
    """Refuse too few prompts before hours of sampling, not after."""
    from memattn.evaluation.calibration import fewest_samples

    needed = fewest_samples(rate)
    if prompts < needed:
        raise InputError(
            f"got {prompts} ordinary prompts, expected at least {needed} for a false-positive "
            f"rate of {rate}."
        )

"""Set thresholds for a model from prompts that it has not memorized.

Generates one image per prompt, scores each with every detector, and writes the score that only the
wanted share of such prompts exceeds, with its confidence interval. A calibration belongs to one
model and its settings. A run that was stopped goes on when it is started again the same way.
"""

import argparse
import math
import shutil
from pathlib import Path

from memattn.cli.options import add_model_options, add_prompt_file, run_settings, share
from memattn.cli.unfinished import is_unfinished
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
        type=share,
        default=0.01,
        metavar="RATE",
        help="share of ordinary prompts that a threshold may flag (0.01, which takes 99 prompts)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Sample, score, write the calibration."""
    from memattn.cli.pipelines import load_pipeline
    from memattn.cli.prompts import check_distinct, read_prompts
    from memattn.cli.tables import paragraph, table
    from memattn.cli.targets import check_output
    from memattn.detectors import DETECTORS
    from memattn.evaluation.calibration import calibrate, model_hash
    from memattn.evaluation.cases import Case
    from memattn.evaluation.runs import run_cases
    from memattn.evaluation.scoring import ordinary_range

    prompts = read_prompts(arguments.prompts)
    check_distinct(prompts, str(arguments.prompts))
    _check_count(len(prompts), arguments.false_positive_rate)
    check_output(arguments.out, folder=False)
    store = _store(arguments.out)
    pipe = load_pipeline(arguments.model, device=arguments.device, dtype=arguments.dtype)
    settings, model = run_settings(arguments, pipe), model_hash(pipe)
    runs = run_cases(
        pipe,
        [Case(prompt, arguments.seed + n, "calibration", "") for n, prompt in enumerate(prompts)],
        DETECTORS,
        settings,
        batch_size=arguments.batch_size,
        store=store,
        label=f"{len(prompts)} prompts, {settings.steps} steps",
        images=False,
        model=model,
    )
    calibration = calibrate(
        runs.scores,
        model_hash=model,
        settings=settings,
        false_positive_rate=arguments.false_positive_rate,
    )
    calibration.save(arguments.out)
    rows = []
    for name, values in runs.scores.items():
        ends = (*ordinary_range(values), calibration.thresholds[name])
        rows.append([name, *(f"{end:.4g}" for end in ends), _shown(calibration.intervals[name])])
    header = ["detector", "5 %", "95 %", "threshold", "its 95 % interval"]
    print(table(header, rows, right=(1, 2, 3)))
    print()
    print(paragraph(_explanation(len(prompts), arguments.false_positive_rate)))
    if calibration.joint_sentence:
        print(paragraph(calibration.joint_sentence))
    print(f"wrote {arguments.out}")
    shutil.rmtree(store)


def _store(out: Path) -> Path:
    """The folder beside the calibration that keeps batches until it is written."""
    folder = out.with_name(f"{out.name}.unfinished")
    if not is_unfinished(folder):
        raise InputError(
            f"got {folder}, which holds other files, expected the unfinished work of an earlier "
            "calibration, or nothing: it is removed at the end."
        )
    return folder


def _shown(interval: tuple[float, float]) -> str:
    """An interval in words; an infinite end is open."""
    low, high = interval
    if math.isinf(low) and math.isinf(high):
        return "any score"
    if math.isinf(high):
        return f"{low:.4g} or more"
    if math.isinf(low):
        return f"{high:.4g} or less"
    return f"{low:.4g} to {high:.4g}"


def _explanation(prompts: int, rate: float) -> str:
    """What the thresholds promise, and what keeps an interval open."""
    from memattn.evaluation.thresholds import false_positive_interval, fewest_samples_for_upper_end

    low, high = false_positive_interval(prompts, rate)
    text = (
        f"Set on {prompts} ordinary prompts for a false-positive rate of {rate:g}, each threshold "
        f"really flags between {low:.2g} and {high:.2g} of such prompts (95 % interval)."
    )
    needed = fewest_samples_for_upper_end(rate)
    if prompts < needed:
        text += f" From {needed} prompts on, a threshold's interval has an upper end."
    return text


def _check_count(prompts: int, rate: float) -> None:
    """Refuse too few prompts before hours of sampling, not after."""
    from memattn.evaluation.calibration import fewest_samples

    needed = fewest_samples(rate)
    if prompts < needed:
        raise InputError(
            f"got {prompts} ordinary prompts, expected at least {needed} for a false-positive "
            f"rate of {rate}."
        )

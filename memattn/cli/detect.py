"""Score the images of a Stable Diffusion checkpoint, and say which prompts it has memorized.

Generates an image for every prompt, records the run, and scores it with every detector. A verdict
takes a calibration for this model and these settings: see `memattn calibrate`.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import memattn
from memattn.cli.options import (
    add_model_options,
    add_prompt_file,
    positive_int,
    run_settings,
)

if TYPE_CHECKING:
    from memattn.evaluation.calibration import Calibration
    from memattn.evaluation.runs import Runs
    from memattn.evaluation.settings import Pipeline, RunSettings
    from memattn.report import ReportPage, SampleCard
    from memattn.testbed import Manifest

_NO_VERDICT = (
    "No verdict: scores of different models do not compare. Calibrate this model on prompts it "
    "has not memorized, `memattn calibrate --model PATH --prompts FILE --out calibration.json`, "
    "and pass --calibration calibration.json."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model_options(parser)
    parser.add_argument(
        "--prompt", action="append", default=[], metavar="TEXT", help="a prompt; may be repeated"
    )
    add_prompt_file(parser, required=False)
    parser.add_argument(
        "--images-per-prompt", type=positive_int, default=1, metavar="N", help="images (1)"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="thresholds from `memattn calibrate`"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write an HTML report with the images there"
    )


def run(arguments: argparse.Namespace) -> None:
    """Sample, score, print, and write the report if one is wanted."""
    from memattn.cli.cards import sample_cards, score_table
    from memattn.cli.pipelines import load_pipeline, testbed_folder
    from memattn.cli.prompts import gather_prompts
    from memattn.cli.tables import paragraph
    from memattn.cli.targets import check_output
    from memattn.detectors import DETECTORS
    from memattn.evaluation.calibration import Calibration, model_hash
    from memattn.evaluation.cases import Case
    from memattn.evaluation.runs import run_cases
    from memattn.report import PAGE, check_target, whole_folder, write_report

    prompts = [
        prompt
        for prompt in gather_prompts(arguments.prompt, arguments.prompts)
        for _ in range(arguments.images_per_prompt)
    ]
    if arguments.out is not None:
        check_output(arguments.out, folder=True)
        check_target(arguments.out)
    calibration = (
        Calibration.load(arguments.calibration) if arguments.calibration is not None else None
    )
    data = testbed_folder(arguments.model)
    pipe = load_pipeline(arguments.model, device=arguments.device, dtype=arguments.dtype)
    settings = run_settings(arguments, pipe)
    if calibration is not None:
        calibration.check(model_hash(pipe), settings)
    runs = run_cases(
        pipe,
        [Case(prompt, arguments.seed + n, "other", "") for n, prompt in enumerate(prompts)],
        DETECTORS,
        settings,
        batch_size=arguments.batch_size,
        store=None,
        label=f"{len(prompts)} images, {settings.steps} steps",
    )
    cards = sample_cards(pipe, runs, calibration.thresholds if calibration is not None else {})
    print(score_table(cards))
    print()
    print(paragraph(_NO_VERDICT if calibration is None else _explanation(calibration)))
    if arguments.out is not None:
        page = _page(arguments, settings, calibration, cards, runs)
        if data is not None:
            from memattn.testbed import load_manifest

            page = _beside_training_images(page, pipe, load_manifest(data))
        with whole_folder(arguments.out) as folder:
            write_report(page, folder)
        print(f"report: {arguments.out / PAGE}")


def _explanation(calibration: "Calibration") -> str:
    """What the stars and the verdicts of the table mean."""
    sentences = (
        "A star marks a score above its threshold, which "
        f"{calibration.false_positive_rate:.3g} of ordinary prompts may exceed; one star makes the "
        "verdict.",
        calibration.joint_sentence,
        "A detector is evidence, not proof.",
    )
    return " ".join(filter(None, sentences))


def _page(
    arguments: argparse.Namespace,
    settings: "RunSettings",
    calibration: "Calibration | None",
    cards: "tuple[SampleCard, ...]",
    runs: "Runs",
) -> "ReportPage":
    """The report of this run."""
    from memattn.cli.cards import LIMITS, detector_row
    from memattn.detectors import DETECTORS
    from memattn.evaluation.scoring import unreadable
    from memattn.report import Group, ReportPage

    flagged = sum(card.verdict == "memorized" for card in cards)
    thresholds = calibration.thresholds if calibration is not None else {}
    verdicts = [
        _NO_VERDICT.replace("`", "")
        if calibration is None
        else f"{flagged} of {len(cards)} images were flagged as memorized."
    ]
    if calibration is not None and calibration.joint_sentence:
        verdicts.append(calibration.joint_sentence)
    return ReportPage(
        version=memattn.__version__,
        title="Memorization report",
        lead=(
            "One image per line of prompts, each with its memorization scores, the attention that "
            "every word received, and the region that Bright Ending points at."
        ),
        findings=(
            *verdicts,
            *(unreadable(detector, reason) for detector, reason in runs.unreadable.items()),
        ),
        settings=(
            ("Model", Path(arguments.model).name or arguments.model),
            ("Scheduler", str(settings.scheduler)),
            ("Steps", str(settings.steps)),
            ("Guidance", f"{settings.guidance_scale:g}"),
            ("Image size", f"{settings.width} x {settings.height}"),
            ("Calibration", _calibration_text(calibration)),
        ),
        detectors=tuple(
            detector_row(d, thresholds.get(d.name)) for d in DETECTORS if d.name in runs.scores
        ),
        cards=cards,
        groups=(Group("", ""),),
        limits=LIMITS,
    )


def _beside_training_images(
    page: "ReportPage", pipe: "Pipeline", manifest: "Manifest"
) -> "ReportPage":
    """A testbed's report, each image beside the nearest of the training pictures kept."""
    from memattn.cli.truth import nearest_training_images

    nearest = nearest_training_images(
        pipe, [card.prompt for card in page.cards], [card.image for card in page.cards], manifest
    )
    cards = (replace(card, nearest=n) for card, n in zip(page.cards, nearest, strict=True))
    return replace(page, cards=tuple(cards), kept_pictures=len(manifest.shown))


def _calibration_text(calibration: "Calibration | None") -> str:
    """One line on where the thresholds come from."""
    if calibration is None:
        return "none"
    return (
        f"{max(calibration.samples.values())} ordinary prompts, false-positive rate "
        f"{calibration.false_positive_rate:g}"
    )

"""Show the whole thing on the testbed, a small Stable Diffusion whose memorization is known.

Calibrates the detectors on ordinary prompts, scores prompts that were shown often, once, or never
in training, prints scores and verdicts beside the truth and beside a control with random weights,
and writes an HTML report. Takes a few minutes on two CPU cores.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from memattn.cli.demo_plan import Plan
    from memattn.evaluation.settings import Pipeline
    from memattn.evaluation.study import Study
    from memattn.report import SampleCard
    from memattn.testbed import Manifest


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("memattn-demo"),
        metavar="DIR",
        help="folder for the HTML report (memattn-demo)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Load the testbed and run the default plan."""
    from memattn.cli.demo_plan import Plan
    from memattn.cli.pipelines import quiet_libraries
    from memattn.cli.targets import check_output
    from memattn.report import check_target

    check_output(arguments.out, folder=True)
    check_target(arguments.out)
    with quiet_libraries():
        from memattn import testbed

        pipe, control = testbed.load_pipeline(), testbed.load_control()
    demonstrate(pipe, control, testbed.load_manifest(), Plan(), arguments.out)


def demonstrate(
    pipe: "Pipeline", control: "Pipeline", manifest: "Manifest", plan: "Plan", out: Path
) -> None:
    """Study the detectors on a model whose truth is known, print what was found, and report it.

    Args:
        pipe: The model.
        control: The same with a denoiser that has memorized nothing.
        manifest: What the model was shown, and which prompts are verified copies.
        plan: How much to generate.
        out: Folder for the report; an earlier report there is replaced.

    Raises:
        TestbedError: If the manifest lacks what the plan asks for.
        InputError: If `out` holds something else than a report.
    """
    from memattn.cli.cards import score_table
    from memattn.cli.demo_page import demo_page, detector_table, findings
    from memattn.cli.demo_plan import choose_cases
    from memattn.cli.evaluation_controls import RANDOM_WEIGHTS
    from memattn.cli.tables import paragraph
    from memattn.evaluation.settings import RunSettings
    from memattn.evaluation.study import run_study
    from memattn.report import PAGE, THRESHOLDS, whole_folder, write_report

    study = run_study(
        pipe,
        {RANDOM_WEIGHTS: lambda: control},
        plan.detectors,
        choose_cases(manifest, plan),
        RunSettings(steps=plan.steps),
        false_positive_rate=plan.false_positive_rate,
        batch_size=plan.batch_size,
    )
    cards = _cards(pipe, study, manifest)
    shown = _shown(cards, plan)
    found = findings(study, cards)
    with whole_folder(out) as folder:
        write_report(demo_page(study, plan, manifest, shown, found), folder)
        study.calibration.save(folder / THRESHOLDS)
    print(score_table(shown))
    print("A star marks a score above its threshold; one star makes the verdict.\n")
    print(detector_table(study))
    print()
    for sentence in found:
        print(paragraph(sentence))
    print(f"\nreport: {out / PAGE}")
    print(f"thresholds, for `memattn detect --calibration`: {out / THRESHOLDS}")


def _cards(pipe: "Pipeline", study: "Study", manifest: "Manifest") -> "tuple[SampleCard, ...]":
    """Cards of all samples but the calibration's, with group, nearest image and true mask."""
    from memattn.cli.cards import sample_cards
    from memattn.cli.demo_page import heading
    from memattn.cli.truth import nearest_training_images
    from memattn.testbed.verification import SEEDS

    cases = [case for case in study.runs.cases if case.role != "calibration"]
    cards = sample_cards(pipe, study.runs, study.calibration.thresholds)
    nearest = nearest_training_images(
        pipe, [card.prompt for card in cards], [card.image for card in cards], manifest
    )
    copies = {entry.prompt: entry.copies for entry in manifest.shown}
    return tuple(
        replace(
            card,
            group=heading(case.group),
            nearest=found,
            true_mask=case.true_mask,
            copies=_of_seeds(copies.get(case.prompt), len(SEEDS)),
        )
        for card, case, found in zip(cards, cases, nearest, strict=True)
    )


def _of_seeds(copies: int | None, seeds: int) -> tuple[int, int] | None:
    """How many of the seeds gave a copy, None for prompts that have nothing to copy."""
    return None if copies is None else (copies, seeds)


def _shown(cards: "Sequence[SampleCard]", plan: "Plan") -> "tuple[SampleCard, ...]":
    """The first few cards of each group in the manifest's order, group by group."""
    from memattn.cli.demo_page import heading

    room = Counter({heading(group): count for group, count in plan.shown.items()})
    chosen = []
    for card in sorted(cards, key=lambda card: card.seed):
        if room[card.group] > 0:
            room[card.group] -= 1
            chosen.append(card)
    order = [heading(group) for group in plan.shown]
    return tuple(sorted(chosen, key=lambda card: order.index(card.group)))

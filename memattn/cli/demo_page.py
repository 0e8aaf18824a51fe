"""What the demo says about its study: sentences, the printed table, the report's page."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import memattn
from memattn.cli.begin_token import begin_token_sentence
from memattn.cli.cards import LIMITS, detector_row
from memattn.cli.demo_plan import Plan
from memattn.cli.evaluation_controls import RANDOM_WEIGHTS
from memattn.cli.evaluation_tables import interval
from memattn.cli.tables import table
from memattn.cli.truth import OWN_PICTURE
from memattn.evaluation.cases import rows_of
from memattn.evaluation.roc import Auroc
from memattn.evaluation.study import ALL, DetectorResult, Study
from memattn.report import DetectorRow, Group, Interval, ReportPage, SampleCard
from memattn.report.areas import CHANCE, misses_chance

if TYPE_CHECKING:
    from memattn.testbed import Manifest
    from memattn.testbed.groups import Group as TestbedGroup


def meanings(manifest: "Manifest") -> "dict[TestbedGroup, str]":
    """What the prompts of each group have in common, with the testbed's own figures."""

    def often(group: "TestbedGroup") -> str:
        showings = [entry.showings for entry in manifest.select(group)]
        return f"shown {min(showings)} to {max(showings)} times in training"

    return {
        "verbatim": f"One caption with one picture, {often('verbatim')}.",
        "template": (
            f"One caption {often('template')} over {manifest.recipe.template_variants} different "
            "pictures, of which one region is always the same and the rest varies."
        ),
        "seen_once": "One caption with one picture, shown once in training.",
        "ordinary": "Never shown in training.",
    }


def heading(group: str) -> str:
    """A group's name as a heading."""
    return group.replace("_", " ").capitalize()


def detector_table(study: Study) -> str:
    """The printed table of detectors."""
    rows = [
        [
            result.detector.name,
            "first call" if result.detector.one_call else "whole run",
            interval(result.auroc[ALL]),
            interval(result.controls[RANDOM_WEIGHTS]),
            "{} of {}".format(*study.flagged_by(result.detector.name, "memorized")),
            "{} of {}".format(*study.flagged_by(result.detector.name, "ordinary")),
        ]
        for result in study.detectors
    ]
    header = [
        "detector",
        "reads",
        "AUROC\n(95 % interval)",
        "random-weights\ncontrol",
        "flagged of\nmemorized",
        "flagged of\nordinary",
    ]
    return table(header, rows, right=(4, 5))


def findings(study: Study, cards: Sequence[SampleCard]) -> tuple[str, ...]:
    """The study's main figures in sentences.

    Args:
        study: What was found.
        cards: Cards of all samples but the calibration's, in the study's order.

    Returns:
        One sentence or two for each subject.
    """
    cases, flagged = study.runs.cases, study.flagged
    memorized_rows, ordinary_rows = rows_of(cases, "memorized"), rows_of(cases, "ordinary")
    memorized, ordinary = len(memorized_rows), len(ordinary_rows)
    once = [row for row, case in enumerate(cases) if case.group == "seen_once"]
    often = sum(case.group in ("verbatim", "template") for case in cases)
    copied = {cases[row].prompt for row in memorized_rows}
    copies = sum(
        card.nearest is not None and card.nearest.is_copy and card.nearest.name == OWN_PICTURE
        for card in cards
        if card.prompt in copied
    )
    hits = sum(flagged[row] for row in memorized_rows)
    alarms = sum(flagged[row] for row in ordinary_rows)
    right = hits + ordinary - alarms
    sentences = [
        f"Verdicts: {hits} of {memorized} memorized prompts were flagged, {alarms} of {ordinary} "
        f"ordinary prompts, and {sum(flagged[row] for row in once)} of {len(once)} prompts seen "
        f"once. Of the memorized and ordinary ones, {right} of {memorized + ordinary} verdicts "
        f"were right ({right / (memorized + ordinary):.0%}).",
        f"Truth: of {often} prompts shown often in training, {memorized} are verified copies and "
        f"count as memorized here; {copies} of these {memorized} gave a copy of their own "
        "picture with this run's seed.",
    ]
    weak = [r.detector.name for r in study.detectors if not misses_chance(r.auroc[ALL])]
    if weak:
        sentences.append(
            f"No better than chance on this model, by its interval: {', '.join(weak)}."
        )
    backward = [r.detector.name for r in study.detectors if r.auroc[ALL].high < CHANCE]
    if backward:
        sentences.append(
            f"Ranks the wrong way round on this model, by its interval: {', '.join(backward)}."
        )
    if study.runs.traces is not None:
        sentences.append(begin_token_sentence(study.runs.traces, memorized_rows, ordinary_rows))
    off = [
        result.detector.name
        for result in study.detectors
        if misses_chance(result.controls[RANDOM_WEIGHTS])
    ]
    sentences.append(
        f"On the control the interval of {', '.join(off)} misses 0.5: part of that figure may "
        "come from the prompts themselves."
        if off
        else "On the control with random weights every interval contains 0.5, as it should."
    )
    return tuple(sentences)


def demo_page(
    study: Study,
    plan: Plan,
    manifest: "Manifest",
    cards: Sequence[SampleCard],
    found: tuple[str, ...],
) -> ReportPage:
    """The demo's report.

    Args:
        study: What was found.
        plan: How much was generated.
        manifest: The testbed's manifest.
        cards: The samples to show.
        found: Sentences of `findings`.

    Returns:
        The page.
    """
    settings = study.calibration.settings
    return ReportPage(
        version=memattn.__version__,
        title="When a diffusion model copies",
        lead=(
            "memattn's testbed is a small Stable Diffusion whose memorization is known by "
            "construction: some captions were shown often in training, some once, some never, "
            "and they differ in nothing else. Each sample below stands beside the nearest of the "
            f"{len(manifest.shown)} training pictures kept."
        ),
        findings=found,
        settings=(
            ("Model", "testbed"),
            ("Scheduler", str(settings.scheduler).partition("-")[0]),
            ("Steps", str(settings.steps)),
            ("Guidance", f"{settings.guidance_scale:g}"),
            ("Image size", f"{settings.width} x {settings.height}"),
            ("Threshold may flag", f"{plan.false_positive_rate:.0%} of ordinary prompts"),
            ("Thresholds from", f"{plan.calibration} ordinary prompts"),
        ),
        detectors=tuple(_row(study, result) for result in study.detectors),
        cards=tuple(cards),
        groups=tuple(Group(heading(group), text) for group, text in meanings(manifest).items()),
        limits=(
            *LIMITS,
            "The testbed is small and its pictures are drawn by a program: figures measured here "
            "say that a method works as described, not how well it does on a large model.",
            "LayerEntropy stands here twice: at the paper's layer 3, and at layer 9, in the first "
            "up block with cross-attention, which told most in a trial before this training.",
        ),
        kept_pictures=len(manifest.shown),
    )


def _row(study: Study, result: DetectorResult) -> DetectorRow:
    """One line of the report's table of detectors."""
    area = result.auroc[ALL]
    return replace(
        detector_row(result.detector, result.threshold, result.ordinary_range),
        auroc=_interval(area),
        control=_interval(result.controls[RANDOM_WEIGHTS]),
        evidence=f"{area.memorized} memorized, {area.ordinary} ordinary",
        hits=study.flagged_by(result.detector.name, "memorized"),
        alarms=study.flagged_by(result.detector.name, "ordinary"),
    )


def _interval(area: Auroc) -> Interval:
    """An area as the report takes it."""
    return Interval(area.value, area.low, area.high)

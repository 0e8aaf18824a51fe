"""The evaluation's page: what detectors and localisers achieve, beside controls, and why."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import memattn.report.plots as plots
from memattn.evaluation.cases import rows_of
from memattn.evaluation.groups import GroupFigures
from memattn.evaluation.roc import FEWEST_ORDINARY
from memattn.evaluation.study import ALL, NOT_COPIED, DetectorResult, Study
from memattn.report.areas import CHANCE, misses_chance, with_interval
from memattn.report.folder import PAGE
from memattn.report.gallery import Exhibit, exhibits
from memattn.report.templates import environment

FIGURES = "figures"

_LIMITS = (
    "A detector is evidence, not proof: it reads how the model reacts to a prompt, and a score "
    "above the threshold does not name the image that was copied.",
    "Intervals hold what the choice of prompts leaves open. Where two groups do not overlap at "
    "all, an interval has no width, which does not mean that the figure is certain.",
    "Thresholds and figures belong to this model, these settings and this kind of prompts.",
)


@dataclass(frozen=True, kw_only=True)
class EvaluationPage:
    """What the page's template shows.

    Attributes:
        version: Version of memattn that made it.
        title: Heading.
        lead: Opening sentences.
        findings: Sentences with the main figures.
        settings: Names and values of the run's settings, in order.
        truth: How it is known which prompts are memorized, a paragraph each.
        study: The figures.
        parts: Groups of memorized cases with an AUROC of their own, "all" first.
        groups: Groups with counts of flagged cases.
        controls: Names of the controls.
        figures: The drawings, in order.
        gallery: Localiser's name to its examples.
        images: Figures of the generated images, group by group; empty if there are none.
        images_note: What to compare them with, empty if there is nothing to say.
        limits: Sentences on what the page cannot say.
    """

    version: str
    title: str
    lead: str
    findings: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    truth: tuple[str, ...]
    study: Study
    parts: tuple[str, ...]
    groups: tuple[str, ...]
    controls: tuple[str, ...]
    figures: tuple[plots.Plot, ...]
    gallery: Mapping[str, tuple[Exhibit, ...]]
    images: tuple[GroupFigures, ...]
    images_note: str
    limits: tuple[str, ...]


def write_evaluation(
    study: Study,
    folder: Path,
    *,
    model: str,
    truth: Sequence[str],
    training_pictures: Mapping[str, NDArray[np.uint8]] | None = None,
    images: Sequence[GroupFigures] = (),
    images_note: str = "",
) -> None:
    """Write the page and its figures into a folder, usually one of `whole_folder`.

    `index.html` needs no other file; `figures/` holds its drawings once more, each as an SVG file.
    The same study gives the same bytes.

    Args:
        study: What was found.
        folder: An existing folder.
        model: What the model is called.
        truth: How it is known which prompts are memorized, a paragraph each.
        training_pictures: Prompt to its training picture [height, width, 3], where known.
        images: Figures of the generated images, group by group.
        images_note: What to compare them with.
    """
    drawn = plots.figures_of(study)
    page = evaluation_page(study, model, truth, training_pictures or {}, drawn, images, images_note)
    (folder / PAGE).write_text(render_evaluation(page), encoding="utf-8")
    figures = folder / FIGURES
    figures.mkdir()
    for plot in drawn:
        (figures / f"{plot.name}.svg").write_text(plot.file, encoding="utf-8")


def render_evaluation(page: EvaluationPage) -> str:
    """The page as one HTML document that loads nothing from anywhere else."""
    template = environment().get_template("evaluation.html.jinja")
    return template.render(page=page, misses_chance=misses_chance, ends=_ends)


def evaluation_page(
    study: Study,
    model: str,
    truth: Sequence[str],
    training_pictures: Mapping[str, NDArray[np.uint8]],
    figures: tuple[plots.Plot, ...],
    images: Sequence[GroupFigures] = (),
    images_note: str = "",
) -> EvaluationPage:
    """The page of a study.

    Args:
        study: What was found.
        model: What the model is called.
        truth: How it is known which prompts are memorized, a paragraph each.
        training_pictures: Prompt to its training picture [height, width, 3], where known.
        figures: The drawings, in order.
        images: Figures of the generated images, group by group.
        images_note: What to compare them with.

    Returns:
        Everything that the template shows.
    """
    settings, calibration, cases = study.settings, study.calibration, study.runs.cases
    count = {role: len(rows_of(cases, role)) for role in ("calibration", "memorized", "ordinary")}
    return EvaluationPage(
        version=calibration.version,
        title=f"What the detectors achieve on {model}",
        lead=(
            f"{_detectors(len(study.detectors))} on {count['memorized']} memorized and "
            f"{count['ordinary']} ordinary prompts, each scored in one recorded run; thresholds "
            f"come from {count['calibration']} other ordinary prompts. "
            + (
                "The AUROC of all memorized prompts is taken on controls too, models that should "
                "have memorized none of them."
                if study.control_scores
                else "No control was run."
            )
        ),
        findings=_findings(study),
        settings=(
            ("Model", model),
            ("Weights", calibration.model_hash[:12]),
            ("Scheduler", str(settings.scheduler).partition("-")[0]),
            ("Steps", str(settings.steps)),
            ("Guidance", f"{settings.guidance_scale:g}"),
            ("Image size", f"{settings.width} x {settings.height}"),
            (
                "Threshold may flag",
                f"{100 * calibration.false_positive_rate:g} % of ordinary prompts",
            ),
        ),
        truth=tuple(truth),
        study=study,
        parts=tuple(study.detectors[0].auroc),
        groups=_flagged_groups(study),
        controls=tuple(study.control_scores),
        figures=figures,
        gallery={
            result.name: exhibits(study, result.name, training_pictures)
            for result in study.localisers
        },
        images=tuple(images),
        images_note=images_note,
        limits=_LIMITS + _left_out(study),
    )


def _findings(study: Study) -> tuple[str, ...]:
    """The main figures in sentences."""
    ranked = sorted(study.detectors, key=lambda result: -result.auroc[ALL].value)
    sentences = [
        f"Best by AUROC: {'; then '.join(_with_area(result) for result in ranked[:2])}.",
    ]
    for text, chosen in (
        (
            "Not told apart from chance, by the interval",
            [r for r in ranked if not misses_chance(r.auroc[ALL])],
        ),
        (
            "The wrong way round, by the interval",
            [r for r in ranked if r.auroc[ALL].high < CHANCE],
        ),
    ):
        if chosen:
            sentences.append(f"{text}: {', '.join(_with_area(result) for result in chosen)}.")
    for control in study.control_scores:
        off = [
            f"{result.detector.name}, {with_interval(result.controls[control])}"
            for result in study.detectors
            if control in result.controls and misses_chance(result.controls[control])
        ]
        sentences.append(
            f"Control {control}: the interval misses 0.5 for {'; '.join(off)}. That may "
            "be chance, which puts 0.5 outside one interval in twenty, or part of those figures "
            "may come from the prompts themselves."
            if off
            else f"Control {control}: every interval contains 0.5."
        )
    if study.calibration.joint_sentence:
        sentences.append(study.calibration.joint_sentence)
    return tuple(sentences)


def _flagged_groups(study: Study) -> tuple[str, ...]:
    """Groups with counts of flagged cases, the most often shown first."""
    order = [*reversed(plots.groups_of(study)), NOT_COPIED]
    return tuple(group for group in order if group in study.detectors[0].flagged)


def _with_area(result: DetectorResult) -> str:
    """A detector with its AUROC."""
    return f"{result.detector.name}, {with_interval(result.auroc[ALL])}"


def _detectors(count: int) -> str:
    """A number of detectors in words."""
    return "1 detector" if count == 1 else f"{count} detectors"


def _ends(low: float, high: float) -> str:
    """An interval in words; an end of it may be infinite."""
    if math.isinf(low):
        return "no bounds" if math.isinf(high) else f"{high:.4g} and below"
    return f"{low:.4g} and above" if math.isinf(high) else f"{low:.4g} to {high:.4g}"


def _left_out(study: Study) -> tuple[str, ...]:
    """What is missing on this page, and why."""
    reasons = [
        f"{name} cannot read this model and is left out: {reason}"
        for name, reason in study.runs.unreadable.items()
    ]
    if any(result.tpr is None for result in study.detectors):
        reasons.append(
            "The true-positive rate at 1 % false positives is left out: it takes at least "
            f"{FEWEST_ORDINARY} ordinary prompts."
        )
    if study.runs.traces is None:
        reasons.append("The figures that explain single detectors are left out: no traces.")
    return tuple(reasons)

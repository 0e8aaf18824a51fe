"""Score distributions: one panel per detector, one row per group, and the threshold."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memattn.evaluation.study import Study
from memattn.report.plots.dots import draw_dots
from memattn.report.plots.style import (
    INK,
    LINE,
    MEMORIZED,
    ORDINARY,
    QUIET,
    Plot,
    panel_rows,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# From the bottom row up; groups of other names stand above them.
_ORDER = ("ordinary", "seen_once", "ladder", "template", "verbatim")
_ROW = 0.74  # of the distance of two rows is filled with dots
_GOLDEN = 0.6180339887498949  # multiples of it spread evenly between 0 and 1


def groups_of(study: Study) -> list[str]:
    """The groups of the cases that are measured, in the order of the figures' rows."""
    found = {case.group for case in study.runs.cases if case.role != "calibration"}
    return [name for name in _ORDER if name in found] + sorted(found - set(_ORDER))


def group_label(group: str) -> str:
    """A group's name as a reader sees it."""
    return group.replace("_", " ")


def spread(count: int) -> NDArray[np.float64]:
    """Offsets between -0.5 and 0.5 that keep dots of one row apart, the same ones every time."""
    return np.asarray((np.arange(count) * _GOLDEN) % 1 - 0.5, dtype=np.float64)


def score_distributions(study: Study) -> Plot:
    """The figure of all scores."""
    groups = groups_of(study)
    kinds = (("memorized", MEMORIZED), ("ordinary", ORDINARY), ("other", QUIET))
    members = {
        (group, role): [
            row
            for row, case in enumerate(study.runs.cases)
            if (case.group, case.role) == (group, role)
        ]
        for group in groups
        for role, _ in kinds
    }

    def paint(figure: "Figure") -> None:
        for axes, result in zip(panels(figure, len(study.detectors)), study.detectors, strict=True):
            scores = study.runs.scores[result.detector.name].double().numpy()
            axes.axvline(result.threshold, color=INK, linewidth=1.0)
            for height, group in enumerate(groups):
                axes.axhline(height - 0.5, color=LINE, linewidth=0.6)
                for role, color in kinds:
                    rows = members[group, role]
                    offsets = height + _ROW * spread(len(rows))
                    draw_dots(axes, scores[rows], offsets, color)
            # An interval may have no upper end, and may be much wider than the scores.
            left, right = axes.get_xlim()
            low, high = np.clip(result.threshold_interval, left, right)
            axes.axvspan(low, high, color=QUIET, alpha=0.35, linewidth=0)
            axes.set_xlim(left, right)
            axes.set_title(result.detector.name)
            axes.locator_params(axis="x", nbins=5)
            axes.set_yticks(range(len(groups)), [group_label(group) for group in groups])
            axes.tick_params(axis="y", length=0)
            axes.set_ylim(-0.6, len(groups) - 0.4)

    title = "Scores by group"
    once = [
        f"{result.detector.name} {flagged} of {count}"
        for result in study.detectors
        for flagged, count in [result.flagged.get("seen_once", (0, 0))]
        if flagged
    ]
    caption = (
        "A dot is a prompt: red if it is memorized, blue if ordinary, grey if it belongs to "
        "neither. The upright line is the threshold from the calibration prompts, which are "
        "not drawn; the grey strip is its 95 % interval. More to the right means more likely "
        "memorized."
    )
    if any(math.isinf(result.threshold_interval[1]) for result in study.detectors):
        caption += (
            " Where the strip reaches the right edge it may have no upper end: the calibration "
            "prompts are too few for one."
        )
    if once:
        caption += f" Flagged, though seen only once: {', '.join(once)}."
    height = panel_rows(len(study.detectors)) * (50.0 + 26.0 * len(groups))
    return Plot("scores", title, caption, height, paint)

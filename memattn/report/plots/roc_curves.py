"""ROC curves: one panel per detector, with the controls, on an axis that shows 1 %."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memattn.evaluation.roc import roc_curve
from memattn.evaluation.study import ALL, Study
from memattn.report.areas import CHANCE
from memattn.report.plots.comparison import Comparison
from memattn.report.plots.style import (
    LINE,
    MEMORIZED,
    ORDINARY,
    SOFT,
    Plot,
    panel_rows,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_RATE = 0.01
_STYLES = ("--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))  # the controls differ in these alone


def roc_curves(study: Study) -> Plot:
    """The figure of a study's ROC curves."""
    rows = Comparison.of(study)
    floor = 0.5 / len(rows.ordinary)

    def curve(axes: "Axes", memorized: Tensor, ordinary: Tensor, look: dict[str, Any]) -> "Line2D":
        found = roc_curve(memorized, ordinary)
        # A logarithmic axis has no 0: what flags no ordinary prompt stands at its left end.
        rates = np.maximum(found.false_positive_rates, floor)
        corners = _corners(rates, found.true_positive_rates)
        return axes.plot(*corners, drawstyle="steps-post", **look)[0]

    def paint(figure: "Figure") -> None:
        chance = np.geomspace(floor, 1, 60)
        of_controls: dict[str, Line2D] = {}
        for axes, result in zip(panels(figure, len(study.detectors)), study.detectors, strict=True):
            name = result.detector.name
            axes.set_title(name)
            axes.axvline(_RATE, color=LINE, linewidth=1.2)
            axes.plot(chance, chance, color=LINE, linewidth=1.2)
            for index, (control, scores) in enumerate(study.control_scores.items()):
                if name in scores:
                    style = _STYLES[index % len(_STYLES)]
                    look = {"color": ORDINARY, "linewidth": 1.2, "ls": style}
                    of_controls[control] = curve(axes, *scores[name], look)
            values = study.runs.scores[name]
            look = {"color": MEMORIZED, "linewidth": 1.8}
            of_model = curve(axes, values[rows.memorized], values[rows.ordinary], look)
            axes.set_xscale("log")
            axes.set_xlim(floor, 1)
            axes.set_ylim(-0.02, 1.02)
            ticks = [tick for tick in (0.001, 0.01, 0.1, 1.0) if tick >= floor]
            axes.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
            axes.set_xticks([], minor=True)  # an axis of one decade would name them as formulas
            axes.set_yticks([0, 0.5, 1], ["0", "50 %", "100 %"])
            axes.set_xlabel("ordinary prompts flagged")
            axes.set_ylabel("memorized flagged")
            axes.set_title(
                f"{result.auroc[ALL].value:.2f}", loc="right", color=SOFT, fontsize="small"
            )
        figure.legend(
            [of_model, *of_controls.values()],
            ["model", *of_controls],
            loc="outside lower left",
            ncols=4,
        )

    title = "ROC curves"
    best = max(study.detectors, key=lambda result: result.auroc[ALL].value)
    below = [r.detector.name for r in study.detectors if r.auroc[ALL].high < CHANCE]
    mark = ", and the line at 1 % of them" if floor < _RATE else ""
    controls = "blue: the same prompts on the controls; " if study.control_scores else ""
    caption = (
        f"Red: the model, {len(rows.memorized)} memorized against {len(rows.ordinary)} ordinary "
        f"prompts, with the AUROC at the right; {controls}grey: "
        f"guessing{mark}. The horizontal axis is logarithmic, so that its left part shows the few "
        "false alarms that matter; a curve that starts above 0 at the left end finds that many "
        f"with none. The largest area is that of {best.detector.name}, {best.auroc[ALL].value:.2f}."
    )
    if below:
        caption += f" The wrong way round, by the interval: {', '.join(below)}."
    height = 195.0 * panel_rows(len(study.detectors)) + 34
    return Plot("roc", title, caption, height, paint)


def _corners(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A line of steps without the points in the middle of a straight stretch."""
    kept = np.ones(len(x), bool)
    for values in (x, y):
        still = np.diff(values) == 0
        kept[1:-1] &= ~(still[:-1] & still[1:])
    return x[kept], y[kept]

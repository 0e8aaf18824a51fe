"""The ladder: how scores and copies rise with the number of showings."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memattn.evaluation.study import Study
from memattn.report.plots.comparison import Comparison
from memattn.report.plots.dots import draw_dots
from memattn.report.plots.score_distributions import spread
from memattn.report.plots.style import (
    LINE,
    MEMORIZED,
    ORDINARY,
    QUIET,
    Plot,
    panel_rows,
    panels,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LADDER = "ladder"
_WIDTH = 0.36  # of the distance of two rungs


def has_ladder(study: Study) -> bool:
    """Whether some cases were shown more often than others by design."""
    return bool(_rungs(study))


def ladder(study: Study) -> Plot:
    """The figure of scores and copies by number of showings."""
    cases = study.runs.cases
    rung_of = _rungs(study)
    on_ladder, showings = list(rung_of), np.array(list(rung_of.values()))
    copied = np.array([cases[row].role == "memorized" for row in on_ladder])
    rungs = sorted(set(showings.tolist()))
    ordinary = Comparison.of(study).ordinary
    shares = [float(copied[showings == rung].mean()) for rung in rungs]
    ranks = {
        result.detector.name: _ranks(
            study.runs.scores[result.detector.name].double().numpy(), on_ladder, ordinary
        )
        for result in study.detectors
    }

    def scale(axes: "Axes", title: str) -> None:
        axes.set_title(title)
        axes.set_xticks(range(len(rungs)), [str(rung) for rung in rungs])
        axes.set_xlim(-0.6, len(rungs) - 0.4)
        axes.set_yticks([0, 50, 100], ["0", "50 %", "100 %"])
        axes.set_ylim(-4, 104)
        axes.set_xlabel("showings in training")
        axes.grid(axis="y")

    def paint(figure: "Figure") -> None:
        first, *others = panels(figure, 1 + len(ranks))
        scale(first, "Verified copies")
        first.bar(range(len(rungs)), [100 * share for share in shares], 0.62, color=MEMORIZED)
        first.set_ylabel("of the prompts")
        for axes, (name, values) in zip(others, ranks.items(), strict=True):
            scale(axes, name)
            axes.axhline(50, color=LINE, linewidth=1.2)
            axes.set_ylabel("of the ordinary below")
            for place, rung in enumerate(rungs):
                here = showings == rung
                for color, chosen in ((QUIET, here & ~copied), (MEMORIZED, here & copied)):
                    x = place + _WIDTH * spread(int(chosen.sum()))
                    draw_dots(axes, x, values[chosen], color, size=3.2)
            medians = [np.median(values[showings == rung]) for rung in rungs]
            axes.plot(range(len(rungs)), medians, color=ORDINARY, linewidth=1.2)

    title = "The ladder"
    climbs = [
        f"{name} from {np.median(v[showings == rungs[0]]):.0f} to "
        f"{np.median(v[showings == rungs[-1]]):.0f} %"
        for name, v in ranks.items()
    ]
    caption = (
        "Left: how many prompts of each rung are verified copies. Then, per detector: the share "
        "of ordinary prompts that score below each prompt, red if it is a verified copy, with the "
        "median as a line; the median of prompts that were not noticed would be around 50 %. From "
        f"{rungs[0]} to {rungs[-1]} showings copies go from {100 * shares[0]:.0f} to "
        f"{100 * shares[-1]:.0f} % of the prompts, and the median goes, "
        f"for {'; for '.join(climbs)}."
    )
    height = 178.0 * panel_rows(1 + len(ranks))
    return Plot("ladder", title, caption, height, paint)


def _rungs(study: Study) -> dict[int, int]:
    """Row to number of showings, for the cases on the ladder."""
    return {
        row: case.showings
        for row, case in enumerate(study.runs.cases)
        if case.group == _LADDER and case.showings is not None
    }


def _ranks(
    scores: NDArray[np.float64], rows: list[int], ordinary: list[int]
) -> NDArray[np.float64]:
    """Of the ordinary scores, how many percent are below each row's; equal ones count half."""
    values, others = scores[rows][:, None], scores[ordinary][None]
    rank: NDArray[np.float64] = 100 * ((values > others) + 0.5 * (values == others)).mean(axis=1)
    return rank

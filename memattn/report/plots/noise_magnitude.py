"""What `NoiseMagnitude` does here: the guidance gap over the run, and which calls tell."""

from typing import TYPE_CHECKING

from memattn.evaluation.study import Study
from memattn.report.areas import standing, with_interval
from memattn.report.plots.comparison import (
    BAND_TEXT,
    Comparison,
    draw_areas,
    draw_bands,
    furthest_call,
    traces_of,
)
from memattn.report.plots.style import Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def noise_magnitude(study: Study) -> Plot:
    """The figure of the length of the guidance gap."""
    traces, rows = traces_of(study), Comparison.of(study)
    areas = rows.areas(traces.gap)

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2)
        draw_bands(left, traces.gap, rows)
        left.set_title("Length of the guidance gap, in the noise")
        left.set_ylim(bottom=0)
        left.legend(loc="best")
        draw_areas(right, areas)
        right.set_title("AUROC of each call's gap")

    title = "NoiseMagnitude: call by call"
    first, whole = rows.auroc(traces.gap[0]), rows.auroc(traces.gap.mean(0))
    caption = (
        f"{BAND_TEXT}. At the first call the gap of memorized prompts is {standing(first)} that of "
        f"ordinary ones, AUROC {with_interval(first)}; averaged over all calls it is "
        f"{standing(whole)} theirs, {with_interval(whole)}.{furthest_call(areas)}"
    )
    return Plot("noise-magnitude", title, caption, 210.0, paint)

"""What `BrightEnding` does here: LD over the run, and the mask inside the copied region."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from memattn.evaluation.cases import localisable
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
from memattn.report.plots.dots import draw_dots
from memattn.report.plots.style import MEMORIZED, SOFT, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bright_ending(study: Study, name: str) -> Plot:
    """The figure of LD and of the mask of the detector of this name."""
    traces, rows = traces_of(study), Comparison.of(study)
    areas = rows.areas(traces.local_gap)
    pairs = _inside_and_outside(study, name)

    def paint(figure: "Figure") -> None:
        left, middle, *right = figure.subplots(1, 3 if len(pairs) else 2)
        draw_bands(left, traces.local_gap, rows)
        left.set_title("LD")
        left.set_ylim(bottom=0)
        left.legend(loc="best")
        draw_areas(middle, areas)
        middle.set_title("AUROC of each call's LD")
        for axes in right:
            inside, outside = 100 * pairs.T
            end = 1.06 * max(inside.max(), outside.max())
            axes.plot([0, end], [0, end], color=SOFT, linewidth=0.8, linestyle=":")
            draw_dots(axes, outside, inside, MEMORIZED, size=4.0)
            axes.set(xlim=(0, end), ylim=(0, end), aspect="equal")
            axes.set_title("Mask, mean attention in %")
            axes.set_xlabel("outside the true region")
            axes.set_ylabel("inside")

    title = "BrightEnding: call by call, and its mask"
    whole = rows.auroc(traces.local_gap.mean(0))
    caption = (
        f"{BAND_TEXT}. LD of memorized prompts, averaged over the run, is {standing(whole)} that "
        f"of ordinary ones, AUROC {with_interval(whole)}.{furthest_call(areas)}"
    )
    if len(pairs):
        brighter = int((pairs[:, 0] > pairs[:, 1]).sum())
        ratio = float(np.median(pairs[:, 0] / pairs[:, 1]))
        caption += (
            f" Right: of {len(pairs)} memorized prompts whose copied region is part of the "
            f"picture, {brighter} have the brighter mask inside it (above the dotted line); inside "
            f"it is {ratio:.2f} times as bright in the median."
        )
    return Plot("bright-ending", title, caption, 200.0, paint)


def _inside_and_outside(study: Study, name: str) -> NDArray[np.float64]:
    """Mean of the mask inside and outside of the true region [n, 2], for memorized cases."""
    cases, masks = study.runs.cases, study.runs.masks[name]
    pairs = [_means(masks[row], region) for row, region in localisable(cases).items()]
    return np.array(pairs).reshape(-1, 2)


def _means(mask: Tensor, truth: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Mean of a mask [h, w] inside and outside; its pixels on the edge count in parts."""
    assert truth is not None
    whole = torch.from_numpy(truth)[None, None].double()
    inside = F.interpolate(whole, size=mask.shape, mode="area")[0, 0]
    values = mask.double()
    return (
        float((values * inside).sum() / inside.sum()),
        float((values * (1 - inside)).sum() / (1 - inside).sum()),
    )

"""What `LayerEntropy` does here: which layer and call tell, and what the begin token has to do."""

from typing import TYPE_CHECKING

import numpy as np

from memattn.detectors import LayerEntropy
from memattn.evaluation.study import Study
from memattn.report.areas import CHANCE
from memattn.report.plots.comparison import (
    BAND,
    BAND_SHARE,
    Comparison,
    layer_labels,
    traces_of,
    whole_numbers,
)
from memattn.report.plots.style import INK, MEMORIZED, ORDINARY, PAPER, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def layer_entropy(study: Study) -> Plot:
    """The figure of the entropies of every layer and call."""
    traces, rows = traces_of(study), Comparison.of(study)
    areas = rows.areas(traces.entropy)  # [S, N]
    places = _places(study)
    call, layer = divmod(int(np.abs(areas - CHANCE).argmax()), len(traces.layers))
    begin = traces.begin_share[0]  # [N, B]
    names = layer_labels(traces.layers)
    labels = [f"{index}  {name}" for index, name in enumerate(names)]

    def paint_areas(axes: "Axes") -> None:
        image = axes.imshow(
            areas.T, aspect="auto", cmap="RdBu_r", vmin=0, vmax=1, interpolation="none"
        )
        marks = [("o", at_call, at_layer) for at_layer, at_call in places]
        marks.append(("D", call, layer))
        for shape, x, y in marks:
            # Two rings, one of which stands out from any colour of the map.
            for size, color in ((8.5, INK), (6.0, PAPER)):
                axes.plot(x, y, shape, ms=size, mfc="none", mec=color, mew=1.3, clip_on=False)
        axes.set_yticks(range(len(labels)), labels)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("denoiser call")
        whole_numbers(axes)
        axes.set_title("AUROC of the entropy")
        axes.spines[["left", "bottom"]].set_visible(False)
        bar = axes.figure.colorbar(image, ax=axes, fraction=0.05, ticks=[0, CHANCE, 1])
        bar.outline.set_visible(False)

    def paint_begin(axes: "Axes") -> None:
        heights = np.arange(len(labels))
        for label, color, style, chosen in (
            ("memorized", MEMORIZED, "o-", rows.memorized),
            ("ordinary", ORDINARY, "s--", rows.ordinary),
        ):
            group = begin[:, chosen].numpy()
            axes.fill_betweenx(
                heights, *np.percentile(group, BAND, axis=1), color=color, alpha=0.16, linewidth=0
            )
            middle = np.median(group, axis=1)
            axes.plot(middle, heights, style, color=color, ms=3.5, linewidth=1.2, label=label)
        axes.set_title("Attention on the begin token, first call")
        axes.set_xlim(left=0)
        axes.set_xlabel("share of a layer's attention")
        axes.tick_params(axis="y", length=0, labelleft=False)
        axes.grid(axis="x")
        axes.legend(loc="best")

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1.9, 1))
        paint_areas(left)
        paint_begin(right)

    title = "LayerEntropy: layer by layer"
    medians = [rows.medians(share) for share in begin]
    widest = int(np.argmax([abs(memorized - ordinary) for memorized, ordinary in medians]))
    less = sum(memorized < ordinary for memorized, ordinary in medians)
    read = "; ".join(
        f"{areas[at_call, at_layer]:.2f} at layer {at_layer}, call {at_call}"
        for at_layer, at_call in places
    )
    caption = (
        "Left: AUROC of the entropy of every layer at every call; red where memorized prompts have "
        f"the higher entropy ({100 * (areas > CHANCE).mean():.0f} % of the places), blue where "
        f"they have the lower one. Circles: where the detector reads ({read}). Diamond: the place "
        f"furthest from 0.5, {areas[call, layer]:.2f} at layer {layer} "
        f"({names[layer]}), call {call}; it was looked for on these prompts, "
        f"so others may show less. Right: medians and {BAND_SHARE} at the first "
        f"call. The begin token's share differs most at layer {widest}, "
        f"{100 * medians[widest][0]:.1f} % for memorized and {100 * medians[widest][1]:.1f} % for "
        f"ordinary prompts; memorized ones give it less at {less} of {len(labels)} layers."
    )
    height = 70.0 + 15.0 * len(labels)
    return Plot("layer-entropy", title, caption, height, paint)


def _places(study: Study) -> list[tuple[int, int]]:
    """Layer and call that each `LayerEntropy` of the study reads."""
    layers = traces_of(study).layers
    return [
        (
            layers.index(detector.layer)
            if isinstance(detector.layer, str)
            else detector.layer % len(layers),
            detector.call,
        )
        for detector in (result.detector for result in study.detectors)
        if isinstance(detector, LayerEntropy)
    ]

"""What the figures compare: memorized against ordinary cases, call by call."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memattn.evaluation.cases import rows_of
from memattn.evaluation.roc import Auroc, auroc
from memattn.evaluation.study import Study
from memattn.evaluation.traces import Traces
from memattn.report.areas import CHANCE
from memattn.report.plots.style import MEMORIZED, ORDINARY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = (10.0, 90.0)  # percentiles
BAND_SHARE = f"the middle {BAND[1] - BAND[0]:.0f} % of the prompts"
BAND_TEXT = f"Lines are medians, bands hold {BAND_SHARE}"


@dataclass(frozen=True)
class Comparison:
    """Rows of the memorized and of the ordinary cases among all cases of a study."""

    memorized: list[int]
    ordinary: list[int]

    @classmethod
    def of(cls, study: Study) -> "Comparison":
        """The rows that the study's AUROC compares."""
        cases = study.runs.cases
        return cls(rows_of(cases, "memorized"), rows_of(cases, "ordinary"))

    def auroc(self, values: Tensor) -> Auroc:
        """AUROC of one value per case [B], with its interval."""
        return auroc(values[self.memorized], values[self.ordinary])

    def areas(self, values: Tensor) -> NDArray[np.float64]:
        """AUROC without interval of values [..., B], over their last axis."""
        flat = values.reshape(-1, values.shape[-1])
        found = [auroc(row[self.memorized], row[self.ordinary], resamples=1).value for row in flat]
        return np.array(found).reshape(values.shape[:-1])

    def medians(self, values: Tensor) -> tuple[float, float]:
        """Median of the memorized and of the ordinary values [B]."""
        memorized, ordinary = values[self.memorized].numpy(), values[self.ordinary].numpy()
        return float(np.median(memorized)), float(np.median(ordinary))


def traces_of(study: Study) -> Traces:
    """The study's traces, where it has any: no figure of them is asked for without."""
    assert study.runs.traces is not None
    return study.runs.traces


def draw_bands(axes: "Axes", values: Tensor, rows: Comparison) -> None:
    """Median and band over the calls of values [S, B], for memorized and ordinary cases."""
    calls = np.arange(len(values))
    for label, color, style, chosen in (
        ("memorized", MEMORIZED, "-", rows.memorized),
        ("ordinary", ORDINARY, "--", rows.ordinary),
    ):
        group = values[:, chosen].numpy()
        low, high = np.percentile(group, BAND, axis=1)
        axes.fill_between(calls, low, high, color=color, alpha=0.16, linewidth=0)
        axes.plot(calls, np.median(group, axis=1), style, color=color, label=label, linewidth=1.5)
    axes.set_xlabel("denoiser call")
    axes.grid(axis="y")
    whole_numbers(axes)


def draw_areas(axes: "Axes", areas: NDArray[np.float64]) -> None:
    """AUROC at every call [S]."""
    axes.axhline(CHANCE, color=ORDINARY, linewidth=0.8, linestyle=":")
    axes.plot(np.arange(len(areas)), areas, color=MEMORIZED, linewidth=1.5, marker=".", ms=3)
    axes.set_ylim(min(0.4, float(areas.min()) - 0.03), 1.03)
    axes.set_xlabel("denoiser call")
    axes.set_ylabel("AUROC")
    axes.grid(axis="y")
    whole_numbers(axes)


def whole_numbers(axes: "Axes") -> None:
    """Marks at whole numbers only: there is no call 2.5."""
    axes.locator_params(axis="x", integer=True)


def furthest_call(areas: NDArray[np.float64]) -> str:
    """Which call's AUROC [S] is furthest from chance; empty where there is only one call."""
    if len(areas) == 1:
        return ""
    call = int(np.abs(areas - CHANCE).argmax())
    return f" Of the single calls, {call} has the AUROC furthest from 0.5 ({areas[call]:.2f})."


def layer_labels(names: Sequence[str]) -> list[str]:
    """Short names of cross-attention layers.

    Args:
        names: The layers' full names.

    Returns:
        "down 1.1" for down_blocks.1.attentions.1, with the transformer block's number behind it
        where an attention has several: "down 1.1.0".
    """
    short = [_short_label(name) for name in names]
    return [
        label if short.count(label) == 1 else f"{label}.{_block(name)}"
        for label, name in zip(short, names, strict=True)
    ]


def _short_label(name: str) -> str:
    found = re.match(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", name)
    if found:
        return f"{found[1]} {found[2]}.{found[3]}"
    return "mid" if name.startswith("mid_block") else name


def _block(name: str) -> str:
    """The number of a layer's transformer block; its whole name if that has none."""
    found = re.search(r"\.transformer_blocks\.(\d+)\.", name)
    return found[1] if found else name

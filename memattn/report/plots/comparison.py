"""What the figures compare: memorized against ordinary cases, call by call."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memattn.evaluation.cases import rows_of
from memattn.evaluation.roc import Auroc, auroc
from memattn.evaluation.study import Study
from memattn.evaluation.traces import Traces
from memattn.report.plots.style import MEMORIZED, ORDINARY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHANCE = 0.5
BAND = (10.0, 90.0)  # percentiles
BAND_TEXT = "Lines are medians, bands hold the middle 80 % of the prompts"


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
        return float(values[self.memorized].median()), float(values[self.ordinary].median())


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


def standing(area: Auroc) -> str:
    """Whether memorized cases stand higher, lower, or the interval leaves it open."""
    if area.low > CHANCE:
        return "higher than"
    return "lower than" if area.high < CHANCE else "not told apart from"


def with_interval(area: Auroc) -> str:
    """An area with its interval, for a sentence."""
    return f"{area.value:.2f} ({area.low:.2f} to {area.high:.2f})"


def layer_label(name: str) -> str:
    """A short name of a cross-attention layer: down 1.1 for down_blocks.1.attentions.1."""
    found = re.match(r"(down|up)_blocks\.(\d+)\.attentions\.(\d+)", name)
    if found:
        return f"{found[1]} {found[2]}.{found[3]}"
    return "mid" if name.startswith("mid_block") else name

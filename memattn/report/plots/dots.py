"""Dots as one path each group: a marker per prompt would make the page many times as large."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE = 2.6  # points


def draw_dots(
    axes: "Axes",
    x: NDArray[np.floating[Any]],
    y: NDArray[np.floating[Any]],
    color: str,
    size: float = _SIZE,
    label: str | None = None,
) -> None:
    """Dots at x, y as strokes of no length with round ends."""
    gaps = np.full(len(x), np.nan)
    # Between two dots stands a NaN, which lifts the pen.
    across, up = (np.stack([values, values, gaps], axis=1).ravel() for values in (x, y))
    axes.plot(
        across, up, color=color, linewidth=size, solid_capstyle="round", alpha=0.75, label=label
    )

"""One style for all figures: sizes, colours that follow the page, and how matplotlib's SVG is cut.

matplotlib is imported when a figure is drawn, and never pyplot: nothing is kept between figures.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Blue and brick red stay apart for colour-blind readers; lines and marks differ in shape as well.
INK, SOFT, LINE, PAPER = "#1c1b19", "#68645d", "#e2ded5", "#fbfaf7"
ORDINARY, MEMORIZED, QUIET = "#2f5d8a", "#a8361f", "#a7a196"

# Each colour is drawn as the page's variable of this name, with another value on dark paper.
_VARIABLES = {
    INK: ("ink", "#e9e6e0"),
    SOFT: ("soft", "#a19c93"),
    LINE: ("line", "#33343a"),
    PAPER: ("paper", "#151618"),
    ORDINARY: ("accent", "#86b3de"),
    MEMORIZED: ("alarm", "#f0957f"),
    QUIET: ("quiet", "#6f6c66"),
}
_FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'

WIDTH = 760.0  # points; the page shows it 1.4 times as large
COLUMNS = 3  # of panels, in figures with one for each detector
_POINTS_PER_INCH = 72.0

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "memattn",
    "font.family": "DejaVu Sans",  # its widths lay the text out; the page names its own fonts
    "font.size": 9,
    "path.simplify": False,  # it drops dots that are drawn as strokes of no length
    "figure.constrained_layout.h_pad": 0.09,
    "text.parse_math": False,  # names come from users
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}


@dataclass(frozen=True, eq=False)
class Plot:
    """One figure of the page.

    Attributes:
        name: Its file's name without the ending.
        title: What it shows, as a heading.
        caption: What is seen, in sentences.
        height: Height in points.
        paint: Draws on an empty figure.
    """

    name: str
    title: str
    caption: str
    height: float
    paint: Callable[["Figure"], None]

    @cached_property
    def svg(self) -> str:
        """The drawing as an `<svg>` element in the page's colours, the same text every time."""
        return _cut(_draw(self.height, self.paint), self.name, self.title)

    @property
    def file(self) -> str:
        """The drawing as a file of its own, on paper of its own, light or dark."""
        light, dark = (
            " ".join(f"--{name}: {color};" for name, color in pairs)
            for pairs in (
                [(name, color) for color, (name, _) in _VARIABLES.items()],
                list(_VARIABLES.values()),
            )
        )
        style = (
            f"<style>:root {{ {light} }} @media (prefers-color-scheme: dark) "
            f"{{ :root {{ {dark} }} }}</style>\n"
            '<rect width="100%" height="100%" rx="6" style="fill: var(--paper)"/>\n'
        )
        end = self.svg.index(">") + 1
        return f"{self.svg[:end]}\n<title>{escape(self.title)}</title>\n{style}{self.svg[end:]}"


def _draw(height: float, paint: Callable[["Figure"], None]) -> str:
    """Matplotlib's SVG of a figure of so many points height, whatever the user's matplotlibrc."""
    import matplotlib
    from matplotlib.figure import Figure

    text = StringIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        figure = Figure(
            figsize=(WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH), layout="constrained"
        )
        paint(figure)
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _cut(svg: str, name: str, title: str) -> str:
    """One `<svg>` element without prolog, metadata and style sheet, in the page's colours.

    Its ids begin with the figure's name, so that two figures share none; a screen reader says the
    title.
    """
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    size = re.search(r'viewBox="([^"]+)"', svg)
    assert size is not None
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    # In a page, a style sheet inside a drawing would hold for everything outside it too.
    body = re.sub(r"<style[^>]*>.*?</style>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"'DejaVu Sans'[^;\"]*", _FONTS.replace('"', "'"), body)
    for color, (variable, _) in _VARIABLES.items():
        body = body.replace(color, f"var(--{variable})")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'class="plot" viewBox="{size.group(1)}" role="img" aria-label="{escape(title)}" '
        f'stroke-linejoin="round" stroke-linecap="butt">{body.strip()}'
    )


def panels(figure: "Figure", count: int) -> "list[Axes]":
    """A grid of panels, row by row, without the empty places at its end."""
    axes = figure.subplots(panel_rows(count), COLUMNS, squeeze=False).ravel().tolist()
    for empty in axes[count:]:
        empty.remove()
    found: list[Axes] = axes[:count]
    return found


def panel_rows(count: int) -> int:
    """How many rows a grid of so many panels has."""
    return -(-count // COLUMNS)

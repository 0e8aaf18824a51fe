"""A run as a picture: for each layer, memattn with statistics by torch's attention without."""

from dataclasses import dataclass
from pathlib import Path

import jinja2

from memattn.benchmarks.ratios import Row, clocks, rows
from memattn.benchmarks.results import Results
from memattn.benchmarks.targets import sdpa_limit

_WIDTH, _LEFT, _RIGHT, _TOP, _BELOW = 760, 128, 24, 92, 34
_ROW, _APART = 30, 9  # pixels from layer to layer, and between the dtypes of one
_TICK = 0.25
_LEAST_RANGE = 1.1  # the line of torch's attention is always in the picture


@dataclass(frozen=True)
class _Dot:
    """One case: where its median and the middle half of its turns stand, and what they are."""

    dtype: str
    x: float
    low: float
    high: float
    y: float
    text: str


@dataclass(frozen=True)
class _Layer:
    """One line of the picture."""

    name: str
    y: float
    dots: tuple[_Dot, ...]


@dataclass(frozen=True)
class _Mark:
    """A vertical line and what is written at it."""

    x: float
    text: str
    style: str = "grid"


def figure(results: Results) -> str:
    """The ratio to scaled_dot_product_attention as a dot chart, in SVG; on a GPU with a cold cache.

    A dot is the median over the turns, and half of them lie on the bar behind it. The picture
    brings its own background, so that it can be read on a light page and on a dark one.

    Args:
        results: A run of the kernels.
    """
    clock = clocks(results)[-1]
    table = rows(results, clock)
    dtypes = list(dict.fromkeys(row.timing.dtype for row in table))
    names = list(dict.fromkeys(row.timing.shape for row in table))
    # By the dots: one turn that was disturbed may have a bar that leaves the picture.
    widest = max(_LEAST_RANGE, 1.05 * max(row.sdpa.median for row in table))
    bottom = _TOP + _ROW * len(names)
    machine = results.machine
    threads = f"{machine['threads']} threads"
    how = threads if clock == "eager" else "kernel time with a cold cache"

    def x(ratio: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * min(ratio / widest, 1.0), 1)

    def dot(row: Row, y: float) -> _Dot:
        offset = dtypes.index(row.timing.dtype) - (len(dtypes) - 1) / 2
        told = f"{row.sdpa.median:.2f} ({row.sdpa.low:.2f} to {row.sdpa.high:.2f})"
        low, high = x(row.sdpa.low), x(row.sdpa.high)
        return _Dot(row.timing.dtype, x(row.sdpa.median), low, high, y + _APART * offset, told)

    layers = []
    for index, name in enumerate(names):
        y = _TOP + _ROW * (index + 0.5)
        dots = tuple(dot(row, y) for row in table if row.timing.shape == name)
        layers.append(_Layer(name, y, dots))
    limit = sdpa_limit(machine["device_type"])
    references = [_Mark(x(1.0), "torch's attention", "one")]
    references += [_Mark(x(limit), f"target {limit:.2f}", "target")] if limit is not None else []
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("figure.svg.jinja").render(
        width=_WIDTH,
        height=bottom + _BELOW,
        left=_LEFT,
        top=_TOP,
        bottom=bottom,
        title="Attention with statistics, time by that of torch's attention without",
        subtitle=f"{machine['device']}, {how}, torch {machine['torch']}, {results.date}; "
        "lower is better",
        dtypes=dtypes,
        ticks=[_Mark(x(_TICK * n), f"{_TICK * n:g}") for n in range(int(widest / _TICK) + 1)],
        references=references,
        layers=layers,
    )

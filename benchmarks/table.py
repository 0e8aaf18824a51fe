"""A table of text, and how numbers stand in its cells."""

from typing import NamedTuple

from memattn.benchmarks.ratios import Ratio
from memattn.benchmarks.targets import Verdict


class Table(NamedTuple):
    """A table of text.

    Attributes:
        header: Names of the columns; a newline where a narrow page may break one.
        rows: Cells.
        right: Positions of the columns that are aligned to the right.
    """

    header: list[str]
    rows: list[list[str]]
    right: range


def short_name(provider: str) -> str:
    """A provider's name without the word that most of them share."""
    return provider.removeprefix("sdpa_")


def ratio_cell(ratio: Ratio | None, *, spread: bool = False) -> str:
    """A ratio, and in brackets between what half of its turns lie; nothing if it was not timed."""
    if ratio is None:
        return ""
    return f"{ratio.median:.2f}" + (f" ({ratio.low:.2f}-{ratio.high:.2f})" if spread else "")


def verdict_cells(verdict: Verdict) -> list[str]:
    """What is compared, mean, worst case, target, and whether it is met."""
    target = verdict.target
    limit = "" if target.limit is None else f"{target.limit:.2f}"
    if target.worst is not None:
        limit += f", worst {target.worst:.2f}"
    met = {None: "", True: "met", False: "missed"}[verdict.is_met]
    worst = f"{verdict.worst:.2f} {verdict.worst_case}"
    return [target.text, f"{verdict.mean:.2f}", worst, limit, met]

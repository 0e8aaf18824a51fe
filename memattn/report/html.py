"""Fills the page's templates; every text is escaped on its way in."""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from memattn.report.figures import data_uri, overlay, reduced
from memattn.report.page import Group, ReportPage, SampleCard, TokenKind, TokenShare
from memattn.report.scales import scale_for


@dataclass(frozen=True)
class _Part:
    """One stretch of the token sequence in the line above the words."""

    text: str
    kind: str
    share: float


_PARTS: tuple[tuple[TokenKind, str, str], ...] = (
    ("begin", "begin", "begin token"),
    ("word", "words", "words"),
    ("end", "end", "end token"),
    ("padding", "padding", "padding"),
)


def _parts(tokens: Sequence[TokenShare]) -> tuple[_Part, ...]:
    """The shares of begin, words, end and padding, leaving out what the prompt does not have."""
    found = []
    for kind, css_class, text in _PARTS:
        shares = [token.share for token in tokens if token.kind == kind]
        if shares:
            found.append(_Part(text, css_class, sum(shares)))
    return tuple(found)


def _sections(page: ReportPage) -> tuple[tuple[Group, tuple[SampleCard, ...]], ...]:
    """The page's groups with their samples, leaving out empty groups."""
    unknown = {card.group for card in page.cards} - {group.name for group in page.groups}
    if unknown:
        raise ValueError(f"got samples of the groups {sorted(unknown)}, which the page lacks")
    found = []
    for group in page.groups:
        cards = tuple(card for card in page.cards if card.group == group.name)
        if cards:
            found.append((group, cards))
    return tuple(found)


def _percent(share: float) -> str:
    """A share as percent: whole numbers from 10 up, one decimal below."""
    percent = 100.0 * float(share)
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %"


def _short(value: float) -> str:
    """A value with four significant digits."""
    return f"{float(value):.4g}"


def _brief(value: float) -> str:
    """A value with two significant digits."""
    return f"{float(value):.2g}"


def _fixed(value: float) -> str:
    """A value between 0 and 1 with two decimals."""
    return f"{float(value):.2f}"


def _environment() -> jinja2.Environment:
    """Jinja with escaping on and the page's filters."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("memattn.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        uri=data_uri,
        overlay=overlay,
        reduced=reduced,
        parts=_parts,
        percent=_percent,
        short=_short,
        brief=_brief,
        fixed=_fixed,
    )
    return environment


def render(page: ReportPage) -> str:
    """The report as one HTML document that loads nothing from anywhere else.

    Args:
        page: What the report shows.

    Returns:
        The document.

    Raises:
        ValueError: If a sample belongs to a group, or has a score of a detector, that the page
            does not list.
    """
    rows = {row.name: row for row in page.detectors}
    strangers = {score.detector for card in page.cards for score in card.scores} - set(rows)
    if strangers:
        raise ValueError(f"got scores of {sorted(strangers)}, which the page does not list")
    shows = {
        "nearest": any(card.nearest is not None for card in page.cards),
        "mask": any(card.mask is not None for card in page.cards),
        "true_mask": any(card.true_mask is not None for card in page.cards),
        "copies": any(card.copies is not None for card in page.cards),
        "ordinary": any(row.ordinary is not None for row in page.detectors),
    }
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            page=page,
            rows=rows,
            scales={name: scale_for(row, page.cards) for name, row in rows.items()},
            sections=_sections(page),
            measured=any(row.auroc is not None for row in page.detectors),
            shows=shows,
        )
    )

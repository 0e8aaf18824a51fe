"""The templates of all pages: escaping on, and the filters that turn data into text."""

from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from memattn.report.figures import data_uri, overlay, reduced
from memattn.report.page import TokenKind, TokenShare


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


def environment() -> jinja2.Environment:
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

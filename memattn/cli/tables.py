"""Plain text tables that fit a terminal of 100 columns."""

import textwrap
from collections.abc import Sequence

WIDTH = 100
_GAP = "  "


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """Align cells in columns; the widest column gives way if the table would be too wide.

    Args:
        header: Names of the columns; a newline in a name gives it two lines.
        rows: Cells, as many per row as the header has.
        right: Positions of columns that are aligned to the right.

    Returns:
        Lines joined by newlines, without one at the end.

    Raises:
        ValueError: If a row has another number of cells than the header.
    """
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"got a row of {len(row)} cells, expected {len(header)}")
    head = _header_lines(header)
    widths = [max(map(len, column)) for column in zip(*head, *rows, strict=True)]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - WIDTH
    if excess > 0:
        widest = widths.index(max(widths))
        widths[widest] = max(widths[widest] - excess, *(len(line[widest]) for line in head), 4)
    rule = _GAP.join("-" * width for width in widths)
    lines = [_line(cells, widths, right) for cells in head]
    return "\n".join([*lines, rule, *(_line(row, widths, right) for row in rows)])


def paragraph(text: str, indent: str = "") -> str:
    """Text wrapped to the width of a table, its later lines indented like the first."""
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


def duration(seconds: float) -> str:
    """A time in hours, minutes and whole seconds, without what it does not reach."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first:])


def _header_lines(header: Sequence[str]) -> list[list[str]]:
    """The header as lines of cells; shorter names stand at the bottom."""
    names = [name.split("\n") for name in header]
    height = max(map(len, names))
    padded = [[""] * (height - len(name)) + name for name in names]
    return [list(line) for line in zip(*padded, strict=True)]


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    """One row of a table; a cell that does not fit ends in three dots."""
    shown = []
    for column, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        cut = cell if len(cell) <= width else cell[: width - 3] + "..."
        shown.append(cut.rjust(width) if column in right else cut.ljust(width))
    return _GAP.join(shown).rstrip()

"""Fills the page's templates; every text is escaped on its way in."""

from memattn.report.page import Group, ReportPage, SampleCard
from memattn.report.scales import scale_for
from memattn.report.templates import environment


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
        environment()
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

"""Puts a report on disk."""

from pathlib import Path

from memattn.report.figures import png_bytes
from memattn.report.folder import IMAGES, PAGE
from memattn.report.html import render
from memattn.report.page import ReportPage


def write_report(page: ReportPage, folder: Path) -> None:
    """Write the page and its images as PNG files into a folder, usually one of `whole_folder`.

    `index.html` needs no other file; `images/` holds the generated images in the order of the
    samples.

    Args:
        page: What the report shows.
        folder: An empty folder.
    """
    (folder / PAGE).write_text(render(page), encoding="utf-8")
    images = folder / IMAGES
    images.mkdir()
    for position, card in enumerate(page.cards):
        (images / f"{position:03d}.png").write_bytes(png_bytes(card.image))

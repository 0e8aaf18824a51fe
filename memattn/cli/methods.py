"""List the published detectors with paper, formula, cost, and departures from the paper."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the table, then each method in full."""
    from memattn.cli.tables import paragraph, table
    from memattn.detectors import DETECTORS

    rows = [
        [
            detector.name,
            f"{detector.CITATION.authors}, {detector.CITATION.venue}",
            detector.CITATION.arxiv,
            "first call" if detector.one_call else "whole run",
            ", ".join(sorted(detector.needs)),
        ]
        for detector in DETECTORS
    ]
    print(table(["detector", "paper", "arXiv", "needs", "reads"], rows))
    for detector in DETECTORS:
        citation = detector.CITATION
        print(f"\n{detector.name}")
        print(paragraph(f"{citation.authors}, {citation.title}, {citation.venue}", "  "))
        print(paragraph(citation.equation, "  "))
        for deviation in citation.deviations:
            print(paragraph(f"differs: {deviation}", "  "))

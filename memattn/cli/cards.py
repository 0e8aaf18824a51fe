"""Turns samples and scores into what the report and the printed table show."""

import re
from collections.abc import Mapping, Sequence

from memattn.cli.tables import table
from memattn.detectors import Detector
from memattn.evaluation.runs import Runs
from memattn.evaluation.settings import Pipeline
from memattn.report import DetectorRow, SampleCard, Score, token_shares

LIMITS = (
    "A detector is evidence, not proof: it reads how the model reacts to a prompt, and a score "
    "above the threshold does not name the image that was copied.",
    "A threshold holds for the model, the settings and the kind of ordinary prompts it was "
    "calibrated with, and for nothing else.",
    "Every threshold lets a stated share of ordinary prompts pass as memorized, and the verdict "
    "joins all detectors, so it errs on ordinary prompts more often than each of them.",
)


def sample_cards(
    pipe: Pipeline, runs: Runs, thresholds: Mapping[str, float]
) -> tuple[SampleCard, ...]:
    """One card per case that is not of the calibration, without group, nearest image, true mask.

    Args:
        pipe: The pipeline that made the runs.
        runs: Runs with images.
        thresholds: Detector name to threshold; empty without a calibration.

    Returns:
        Cards in the order of the cases.
    """
    assert runs.attention is not None  # runs with images have it
    masks = next(iter(runs.masks.values()), None)
    return tuple(
        SampleCard(
            prompt=case.prompt,
            group="",
            seed=case.seed,
            image=runs.images[row],
            scores=tuple(
                Score(name, float(values[row]), thresholds.get(name))
                for name, values in runs.scores.items()
            ),
            tokens=token_shares(runs.attention[row], _token_ids(pipe, case.prompt), pipe.tokenizer),
            mask=masks[row].numpy() if masks is not None else None,
        )
        for row, case in enumerate(runs.cases)
        if case.role != "calibration"
    )


def detector_row(
    detector: Detector,
    threshold: float | None = None,
    ordinary: tuple[float, float] | None = None,
) -> DetectorRow:
    """What the report's table says of a detector before anything was measured."""
    citation = detector.CITATION
    return DetectorRow(
        name=detector.name,
        reads=_subject(detector),
        calls="1 call" if detector.one_call else "whole run",
        threshold=threshold,
        ordinary=ordinary,
        paper=f"{citation.authors}, {citation.venue}",
        arxiv=citation.arxiv,
    )


def score_table(cards: Sequence[SampleCard]) -> str:
    """Prompt, truth, scores and verdict of every sample, group by group.

    A star marks scores above their threshold. Where there are groups, a line with the group's name
    stands before its samples, and a column says how many seeds copied.

    Args:
        cards: Samples with scores of the same detectors, samples of one group together.

    Returns:
        The table.
    """
    names = [score.detector for score in cards[0].scores]
    grouped = any(card.group for card in cards)
    truth = ["copies"] if grouped else []
    header = ["prompt", *truth, *map(_short_lines, names), "verdict"]
    rows = []
    group = ""
    for card in cards:
        if card.group != group:
            group = card.group
            rows.append([f"{group}:", *[""] * (len(header) - 1)])
        copies = "-" if card.copies is None else f"{card.copies[0]} of {card.copies[1]}"
        rows.append(
            [
                # Control characters in a prompt would reach the terminal.
                "".join(letter if letter.isprintable() else " " for letter in card.prompt),
                *([copies] if grouped else []),
                *(f"{score.value:.4g}{'*' if score.flagged else ' '}" for score in card.scores),
                card.verdict or "none",
            ]
        )
    first = 1 + len(truth)
    return table(header, rows, right=range(first, first + len(names)))


def _token_ids(pipe: Pipeline, prompt: str) -> list[int]:
    """The prompt's tokens with begin and end, cut where the pipeline cuts them."""
    tokenizer = pipe.tokenizer
    ids: list[int] = tokenizer(
        prompt, truncation=True, max_length=tokenizer.model_max_length
    ).input_ids
    return ids


def _subject(detector: Detector) -> str:
    """First sentence of a detector's docstring, without its full stop."""
    first = (type(detector).__doc__ or "").partition("\n")[0]
    return first.rstrip(".")


def _short_lines(name: str) -> str:
    """A detector's name, broken at inner capitals and settings so that its column stays narrow."""
    return re.sub(r"(?<=[a-z])(?=[A-Z(])", "\n", name)

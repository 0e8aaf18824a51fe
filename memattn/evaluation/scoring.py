"""Scores of many samples by many detectors, and what has to be recorded for them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from memattn.detectors import Detector
from memattn.errors import RecordError
from memattn.records import Field, Record

# Where 90 % of the ordinary scores lie, from the 5 % to the 95 % quantile.
_ORDINARY_RANGE = (0.05, 0.95)


class Scores(NamedTuple):
    """What `score_readable` found.

    Attributes:
        values: Detector name to scores [B], on the CPU.
        reasons: Name of each detector that cannot read the record to the reason in one sentence.
    """

    values: dict[str, Tensor]
    reasons: dict[str, str]


def needed_fields(detectors: Sequence[Detector]) -> tuple[Field, ...]:
    """What to record so that every one of some detectors can score.

    Args:
        detectors: The detectors.

    Returns:
        Names of the record's fields, each once.
    """
    return tuple(sorted({name for detector in detectors for name in detector.needs}))


def score(record: Record, detectors: Sequence[Detector]) -> dict[str, Tensor]:
    """Scores of all samples of a record.

    Args:
        record: One or more runs.
        detectors: Detectors that can read it.

    Returns:
        Detector name to scores [B], on the CPU whatever the record's device.

    Raises:
        RecordError: If the record lacks what a detector needs.
    """
    return {detector.name: detector(record).cpu() for detector in detectors}


def score_readable(record: Record, detectors: Sequence[Detector]) -> Scores:
    """Scores by those detectors that can read a record, and why the others cannot.

    Args:
        record: One or more runs.
        detectors: Detectors, of which at least one must be able to read it.

    Returns:
        Scores and reasons.

    Raises:
        RecordError: If no detector can read the record.
    """
    values: dict[str, Tensor] = {}
    reasons: dict[str, str] = {}
    for detector in detectors:
        try:
            found = score(record, [detector])[detector.name]
        except RecordError as error:
            reasons[detector.name] = str(error)
            continue
        if bool(torch.isfinite(found).all()):
            values[detector.name] = found
        else:
            reasons[detector.name] = "it gives scores that are not finite."
    if not values:
        name, reason = next(iter(reasons.items()))
        raise RecordError(f"no detector can read this model; {name}: {reason}")
    return Scores(values, reasons)


def unreadable(detector: str, reason: str) -> str:
    """The sentence on a detector that is left out.

    Args:
        detector: Its name.
        reason: Why it cannot read the model, as `score_readable` gives it.

    Returns:
        One sentence.
    """
    return f"{detector} cannot read this model: {reason}"


def ordinary_range(scores: Tensor) -> tuple[float, float]:
    """Where 90 % of ordinary scores lie.

    Args:
        scores: Scores of ordinary prompts [n].

    Returns:
        Their 5 % and 95 % quantiles.
    """
    low, high = scores.cpu().double().quantile(torch.tensor(_ORDINARY_RANGE, dtype=torch.float64))
    return float(low), float(high)

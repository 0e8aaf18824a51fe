"""Where values stand on a detector's scale, so that all samples of a page share one ruler."""

from collections.abc import Sequence
from dataclasses import dataclass

from memattn.report.page import DetectorRow, SampleCard

_MARGIN = 0.04  # of the scale's length, so that no mark sits on its end


@dataclass(frozen=True)
class Scale:
    """A ruler from `low` to `high`."""

    low: float
    high: float

    def percent(self, value: float) -> float:
        """Position of a value from the scale's left end, in percent of its length."""
        position = (value - self.low) / (self.high - self.low)
        return round(100.0 * min(max(position, 0.0), 1.0), 2)


def scale_for(row: DetectorRow, cards: Sequence[SampleCard]) -> Scale:
    """The smallest scale that holds the detector's threshold, ordinary range and all scores."""
    values = [score.value for card in cards for score in card.scores if score.detector == row.name]
    values += [row.threshold] if row.threshold is not None else []
    values += list(row.ordinary or ())
    if not values:
        return Scale(0.0, 1.0)
    low, high = min(values), max(values)
    # One value alone, or equal ones, would give a scale of length zero.
    margin = _MARGIN * (high - low) or max(abs(high), 1.0) * _MARGIN
    return Scale(low - margin, high + margin)

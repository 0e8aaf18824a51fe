"""What a report shows, as plain frozen data that `memattn demo` and `memattn detect` fill."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from memattn.evaluation.calibration import is_flagged

TokenKind = Literal["begin", "word", "end", "padding"]
Verdict = Literal["memorized", "not flagged"]


@dataclass(frozen=True)
class TokenShare:
    """How much of a sample's attention one word, or the begin, end or padding tokens, received.

    Attributes:
        text: The word as the tokenizer read it; empty for begin, end and padding.
        kind: Which part of the token sequence this is.
        share: Share of all attention, between 0 and 1.
    """

    text: str
    kind: TokenKind
    share: float


@dataclass(frozen=True)
class Score:
    """One detector's score of one sample.

    Attributes:
        detector: Name of the detector.
        value: The score; higher means more likely memorized.
        threshold: The calibrated threshold, None without a calibration.
    """

    detector: str
    value: float
    threshold: float | None

    @property
    def flagged(self) -> bool:
        """Whether the score is above its threshold; CalibrationError if it is NaN."""
        return self.threshold is not None and is_flagged(self.detector, self.value, self.threshold)


@dataclass(frozen=True, eq=False)
class NearestImage:
    """The training image closest to a generated one.

    Attributes:
        image: The training image [height, width, 3], uint8.
        distance: Its distance to the generated image.
        copy_threshold: Distances below this one count as a copy.
        name: What the training image is, in words.
    """

    image: NDArray[np.uint8]
    distance: float
    copy_threshold: float
    name: str

    @property
    def is_copy(self) -> bool:
        """Whether the generated image counts as a copy of this training image."""
        return self.distance < self.copy_threshold


@dataclass(frozen=True, eq=False)
class SampleCard:
    """One generated image and everything that is known about it.

    Attributes:
        prompt: The prompt, as the user wrote it.
        group: The heading under which the sample is shown; empty for no heading.
        seed: Seed of the sample's initial noise.
        image: The generated image [height, width, 3], uint8.
        scores: One score per detector.
        tokens: Attention per word, in reading order, begin first and padding last.
        mask: Bright-Ending mask [h, w], float, None if the detector was not run.
        nearest: The nearest training image, None if no training images are known.
        true_mask: The region that is the same in all training images [height, width], bool.
        copies: Of how many seeds sampled beforehand, how many copied; None if that is unknown.
    """

    prompt: str
    group: str
    seed: int
    image: NDArray[np.uint8]
    scores: tuple[Score, ...]
    tokens: tuple[TokenShare, ...]
    mask: NDArray[np.floating[Any]] | None = None
    nearest: NearestImage | None = None
    true_mask: NDArray[np.bool_] | None = None
    copies: tuple[int, int] | None = None

    @property
    def verdict(self) -> Verdict | None:
        """Memorized if any score is above its threshold; None if no score has a threshold."""
        if all(score.threshold is None for score in self.scores):
            return None
        return "memorized" if any(score.flagged for score in self.scores) else "not flagged"


@dataclass(frozen=True)
class Interval:
    """A measured value between the two ends of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DetectorRow:
    """One line of the table of detectors.

    Attributes:
        name: Name of the detector.
        reads: What it looks at, in a few words.
        calls: Denoiser calls it needs, in words.
        threshold: The calibrated threshold, None without a calibration.
        ordinary: The range in which 90 % of the ordinary prompts' scores lie, None if unknown.
        paper: Citation in words.
        arxiv: arXiv identifier.
        auroc: Area under the ROC curve with its interval, None where the truth is unknown.
        control: The same on the random-weights control.
        evidence: On how many prompts the two areas rest, in words.
        hits: How many memorized prompts were flagged, and of how many.
        alarms: How many ordinary prompts were flagged, and of how many.
    """

    name: str
    reads: str
    calls: str
    threshold: float | None
    ordinary: tuple[float, float] | None
    paper: str
    arxiv: str
    auroc: Interval | None = None
    control: Interval | None = None
    evidence: str = ""
    hits: tuple[int, int] | None = None
    alarms: tuple[int, int] | None = None


@dataclass(frozen=True)
class Group:
    """A heading over samples, with one sentence that says what they have in common."""

    name: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """A whole report.

    Attributes:
        version: Version of memattn that made it.
        title: Heading of the page.
        lead: Opening sentences.
        settings: Names and values of the run's settings, in order.
        detectors: Table of detectors.
        cards: The samples.
        groups: Headings in the order of the page; cards whose group is not listed are an error.
        findings: Sentences with the main figures, shown above the detectors.
        limits: Sentences on what the report cannot say.
        kept_pictures: How many training pictures the nearest one was looked for among.
    """

    version: str
    title: str
    lead: str
    settings: tuple[tuple[str, str], ...]
    detectors: tuple[DetectorRow, ...]
    cards: tuple[SampleCard, ...]
    groups: tuple[Group, ...]
    findings: tuple[str, ...]
    limits: tuple[str, ...]
    kept_pictures: int = 0

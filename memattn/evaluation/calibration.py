"""Thresholds from the scores of ordinary prompts, bound to one model and its settings."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import memattn
from memattn.errors import CalibrationError
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.thresholds import (
    fewest_samples,
    flagged_by_the_others,
    order_statistic,
    share_interval,
    threshold_interval,
)
from memattn.evaluation.weights import model_hash
from memattn.whole import whole_file

__all__ = ["Calibration", "JointRate", "calibrate", "fewest_samples", "is_flagged", "model_hash"]

_FORMAT = "memattn-calibration-2"
_EARLIER_FORMATS = ("memattn-calibration-1",)


@dataclass(frozen=True)
class JointRate:
    """How many ordinary prompts at least one of all detectors flags: what a verdict goes by.

    Each prompt is judged by the thresholds that the other prompts give: at its own, a detector
    flags a number of them that is fixed beforehand, `flagged_by_the_others`.

    Attributes:
        flagged: Prompts that at least one detector flags.
        prompts: All of them.
        low: Lower end of the share's 95 % interval.
        high: Upper end of it.
    """

    flagged: int
    prompts: int
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """From which score on a sample counts as memorized, for one model at one way of running it.

    Holds no date: the same scores give the same file.

    Attributes:
        model_hash: `model_hash` of the pipeline.
        settings: How the images were generated.
        false_positive_rate: Share of ordinary samples that may be flagged.
        thresholds: Detector name to threshold; a score above it is flagged.
        intervals: Detector name to the 95 % confidence interval of the score that exactly this
            share of ordinary samples exceeds; an end that the samples leave open is infinite.
        samples: Detector name to the number of ordinary samples behind its threshold.
        version: Version of memattn that made it.
        joint: How often a verdict is wrong that joins all detectors; None in a file of a memattn
            that did not count it.
    """

    model_hash: str
    settings: RunSettings
    false_positive_rate: float
    thresholds: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    samples: dict[str, int]
    version: str
    joint: JointRate | None = None

    def verdict(self, detector: str, score: float) -> bool:
        """Whether a score counts as memorized.

        Args:
            detector: Name of the detector, `Detector.name`.
            score: Its score.

        Returns:
            True if the score is above the threshold.

        Raises:
            CalibrationError: If the detector was not calibrated, or the score is NaN.
        """
        if detector not in self.thresholds:
            raise CalibrationError(
                f"got detector {detector}, expected one of the calibrated: "
                f"{', '.join(sorted(self.thresholds))}."
            )
        return is_flagged(detector, score, self.thresholds[detector])

    @property
    def joint_sentence(self) -> str:
        """How often a verdict that joins all detectors is wrong on ordinary prompts.

        Empty for a single detector, and where nobody counted it.
        """
        joint = self.joint
        if joint is None or len(self.thresholds) == 1:
            return ""
        return (
            f"A verdict joins {len(self.thresholds)} detectors, of which at least one flags "
            f"{100 * joint.flagged / joint.prompts:.3g} % of ordinary prompts ({joint.flagged} of "
            f"{joint.prompts}, each by the thresholds of the others; 95 % interval "
            f"{100 * joint.low:.3g} to {100 * joint.high:.3g} %)."
        )

    def check(self, model_hash: str, settings: RunSettings) -> None:
        """Refuse another model, or other settings, than the ones calibrated.

        Args:
            model_hash: `model_hash` of the pipeline at hand.
            settings: The settings at hand, resolved against the pipeline.

        Raises:
            CalibrationError: If either differs.
        """
        if model_hash != self.model_hash:
            raise CalibrationError(
                f"this calibration belongs to another model or dtype: got weights with hash "
                f"{model_hash[:12]}, expected {self.model_hash[:12]}; run memattn calibrate for it."
            )
        differing = [
            field.name
            for field in dataclasses.fields(RunSettings)
            if getattr(settings, field.name) != getattr(self.settings, field.name)
        ]
        if differing:
            got = ", ".join(f"{name}={getattr(settings, name)}" for name in differing)
            expected = ", ".join(f"{name}={getattr(self.settings, name)}" for name in differing)
            raise CalibrationError(
                f"this calibration belongs to other settings: got {got}, expected {expected}."
            )

    def save(self, path: Path | str) -> None:
        """Write JSON, whole or not at all.

        An end of an interval that is infinite is null: JSON has no infinity.

        Args:
            path: Target file; its folder must exist.

        Raises:
            CalibrationError: If the file cannot be written.
        """
        path = Path(path)
        content = {"format": _FORMAT, **dataclasses.asdict(self)}
        content["intervals"] = {
            name: [end if math.isfinite(end) else None for end in ends]
            for name, ends in self.intervals.items()
        }
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
        try:
            with whole_file(path) as fresh:
                fresh.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CalibrationError(f"cannot write {path}: {error.strerror}.") from error

    @classmethod
    def load(cls, path: Path | str) -> "Calibration":
        """Read what `save` wrote.

        Args:
            path: A calibration file.

        Returns:
            The calibration.

        Raises:
            CalibrationError: If the file cannot be read, is no calibration, or is one that an
                earlier version of memattn wrote.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationError(f"cannot read {path}: {error.strerror}.") from error
        except ValueError as error:  # not UTF-8, or not JSON
            raise CalibrationError(f"{path} is no calibration: {error}.") from error
        if isinstance(content, dict) and content.get("format") in _EARLIER_FORMATS:
            raise CalibrationError(
                f"{path} was written by an earlier memattn: got format {content['format']!r}, "
                f"expected {_FORMAT!r}; run memattn calibrate again."
            )
        try:
            return _parse(content)
        except (KeyError, TypeError, ValueError) as error:
            raise CalibrationError(f"{path} is no calibration: {error}.") from error


def is_flagged(detector: str, score: float, threshold: float) -> bool:
    """Whether a score is above its threshold.

    Args:
        detector: Name of the detector, for the message.
        score: Its score.
        threshold: Its threshold.

    Returns:
        True if the score is above the threshold, False at it or below.

    Raises:
        CalibrationError: If the score is NaN.
    """
    if math.isnan(score):
        raise CalibrationError(f"got NaN as a score of {detector}, expected a number.")
    return score > threshold


def calibrate(
    scores: Mapping[str, Tensor],
    *,
    model_hash: str,
    settings: RunSettings,
    false_positive_rate: float = 0.01,
) -> Calibration:
    """Thresholds that flag at most the wanted share of ordinary prompts.

    Each threshold is one of the ordinary scores, `order_statistic`: a new ordinary prompt of the
    same kind lies above it with probability at most `rate`. Its interval is `threshold_interval`.

    Args:
        scores: Detector name to scores of ordinary prompts [n].
        model_hash: `model_hash` of the pipeline.
        settings: How the images were generated, resolved against the pipeline.
        false_positive_rate: Share of ordinary prompts that may be flagged, between 0 and 1.

    Returns:
        The calibration.

    Raises:
        CalibrationError: If there are too few ordinary prompts for the rate, or a score is not
            finite.
        ValueError: If the rate is out of range, there are no detectors, or they scored other
            numbers of prompts.
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"got false_positive_rate={false_positive_rate}, expected a number between 0 and 1"
        )
    if not scores:
        raise ValueError("got no scores, expected those of at least one detector")
    ordinary = {
        name: _checked(name, values, false_positive_rate) for name, values in scores.items()
    }
    if len({values.size for values in ordinary.values()}) > 1:
        sizes = ", ".join(f"{values.size} by {name}" for name, values in ordinary.items())
        raise ValueError(f"got scores {sizes}, expected every detector's of the same prompts")
    return Calibration(
        model_hash=model_hash,
        settings=settings,
        false_positive_rate=false_positive_rate,
        thresholds={n: order_statistic(v, false_positive_rate) for n, v in ordinary.items()},
        intervals={n: threshold_interval(v, false_positive_rate) for n, v in ordinary.items()},
        samples={name: values.size for name, values in ordinary.items()},
        version=memattn.__version__,
        joint=_joint(ordinary, false_positive_rate),
    )


def _joint(ordinary: Mapping[str, NDArray[np.float64]], rate: float) -> JointRate:
    """How many prompts at least one detector flags at the threshold of the others."""
    verdicts = [flagged_by_the_others(values, rate) for values in ordinary.values()]
    any_flags = np.logical_or.reduce(verdicts)
    flagged, prompts = int(any_flags.sum()), any_flags.size
    return JointRate(flagged, prompts, *share_interval(flagged, prompts))


def _checked(name: str, scores: Tensor, rate: float) -> NDArray[np.float64]:
    """One detector's ordinary scores [n] after refusing what gives no threshold."""
    values: NDArray[np.float64] = scores.detach().cpu().double().flatten().numpy()
    if not np.isfinite(values).all():
        raise CalibrationError(f"got scores of {name} that are not finite, expected none.")
    if values.size < fewest_samples(rate):
        raise CalibrationError(
            f"got {values.size} ordinary prompts for {name}, expected at least "
            f"{fewest_samples(rate)} for a false-positive rate of {rate}."
        )
    return values


def _parse(content: object) -> Calibration:
    """A calibration from parsed JSON; KeyError, TypeError or ValueError with the reason."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"expected a JSON object with format {_FORMAT!r}")
    names = [field.name for field in dataclasses.fields(Calibration) if field.name != "joint"]
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"expected {', '.join(missing)} in it")
    thresholds = {str(k): _number(v) for k, v in dict(content["thresholds"]).items()}
    intervals = {str(k): _interval(v) for k, v in dict(content["intervals"]).items()}
    samples = {str(k): _count(v) for k, v in dict(content["samples"]).items()}
    rate = _number(content["false_positive_rate"])
    if not thresholds or not thresholds.keys() == intervals.keys() == samples.keys():
        raise ValueError("expected threshold, interval and samples of the same detectors")
    if not 0 < rate < 1:
        raise ValueError(f"got false_positive_rate {rate}, expected a number between 0 and 1")
    return Calibration(
        model_hash=str(content["model_hash"]),
        settings=RunSettings(**content["settings"]),
        false_positive_rate=rate,
        thresholds=thresholds,
        intervals=intervals,
        samples=samples,
        version=str(content["version"]),
        joint=_joint_rate(content.get("joint")),
    )


def _joint_rate(value: object) -> JointRate | None:
    """What `JointRate` was written as, or None where an earlier memattn did not count it."""
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"flagged", "prompts", "low", "high"}:
        raise ValueError(f"got the joint rate {value!r}, expected flagged, prompts, low and high")
    flagged, prompts = value["flagged"], _count(value["prompts"])
    if flagged != 0:
        flagged = _count(flagged)
    low, high = _number(value["low"]), _number(value["high"])
    if not (flagged <= prompts and 0 <= low <= high <= 1):
        raise ValueError(f"got the joint rate {value!r}, expected shares of the prompts")
    return JointRate(flagged, prompts, low, high)


def _number(value: object) -> float:
    """A finite JSON number; Python's parser also takes NaN and Infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"got {value!r}, expected a finite number")
    return float(value)


def _count(value: object) -> int:
    """A whole JSON number from 1 up."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"got {value!r}, expected a whole number from 1 up")
    return value


def _interval(value: object) -> tuple[float, float]:
    """Two JSON numbers, or null where an end is open."""
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"got the interval {value!r}, expected two numbers or null")
    low = -math.inf if value[0] is None else _number(value[0])
    high = math.inf if value[1] is None else _number(value[1])
    if low > high:
        raise ValueError(f"got the interval {value!r}, expected its lower end first")
    return low, high

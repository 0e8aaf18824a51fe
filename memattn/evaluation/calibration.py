"""Thresholds from the scores of ordinary prompts, bound to one model and its settings."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

import memattn
from memattn.errors import CalibrationError
from memattn.evaluation.settings import Pipeline, RunSettings
from memattn.whole import whole_file

_FORMAT = "memattn-calibration-1"
# What turns a prompt and noise into a prediction; an autoencoder comes after all scores.
_SCORED_MODULES = ("unet", "text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Calibration:
    """From which score on a sample counts as memorized, for one model at one way of running it.

    Holds no date: the same scores give the same file.

    Attributes:
        model_hash: `model_hash` of the pipeline.
        settings: How the images were generated.
        false_positive_rate: Share of ordinary samples that may be flagged.
        thresholds: Detector name to threshold; a score above it is flagged.
        samples: Detector name to the number of ordinary samples behind its threshold.
        version: Version of memattn that made it.
    """

    model_hash: str
    settings: RunSettings
    false_positive_rate: float
    thresholds: dict[str, float]
    samples: dict[str, int]
    version: str

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

        Args:
            path: Target file; its folder must exist.

        Raises:
            CalibrationError: If the file cannot be written.
        """
        path = Path(path)
        text = json.dumps({"format": _FORMAT, **dataclasses.asdict(self)}, indent=2, sort_keys=True)
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
            CalibrationError: If the file cannot be read or is no calibration.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationError(f"cannot read {path}: {error.strerror}.") from error
        except ValueError as error:  # not UTF-8, or not JSON
            raise CalibrationError(f"{path} is no calibration: {error}.") from error
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

    The threshold is an order statistic of the n ordinary scores, the one with rank
    n + 1 - floor(rate * (n + 1)): at most floor(rate * (n + 1)) - 1 of them lie above it, and a
    new ordinary prompt of the same kind lies above it with probability at most `rate`.

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
        ValueError: If the rate is out of range or there are no detectors.

    Source:
        Rank: split conformal prediction, Vovk et al. 2005.
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"got false_positive_rate={false_positive_rate}, expected a number between 0 and 1"
        )
    if not scores:
        raise ValueError("got no scores, expected those of at least one detector")
    return Calibration(
        model_hash=model_hash,
        settings=settings,
        false_positive_rate=false_positive_rate,
        thresholds={
            name: _threshold(name, values, false_positive_rate) for name, values in scores.items()
        },
        samples={name: values.numel() for name, values in scores.items()},
        version=memattn.__version__,
    )


def model_hash(pipe: Pipeline) -> str:
    """SHA-256 of the weights behind every score: those of the denoiser and of the text towers.

    Over names, shapes, dtypes and bytes, in order of names. A compiled wrapper hashes like the
    module inside it; another dtype is another model, because its scores differ. Autoencoder and
    scheduler are not part of it.

    Args:
        pipe: A Stable Diffusion pipeline.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for part in _SCORED_MODULES:
        module = getattr(pipe, part, None)
        if module is None:
            continue
        weights = getattr(module, "_orig_mod", module).state_dict()
        for name, tensor in sorted(weights.items()):
            digest.update(f"{part}.{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()


def fewest_samples(false_positive_rate: float) -> int:
    """How many ordinary prompts a threshold for a rate takes at the least.

    Args:
        false_positive_rate: Share of ordinary prompts that may be flagged, between 0 and 1.

    Returns:
        The smallest n with floor(rate * (n + 1)) >= 1.
    """
    return math.ceil(1 / _exact(false_positive_rate)) - 1


def _exact(rate: float) -> Fraction:
    """The decimal number that was meant: 0.29 * 100 is 28.999... in binary."""
    return Fraction(str(rate))


def _threshold(name: str, scores: Tensor, rate: float) -> float:
    """The conservative order statistic of one detector's ordinary scores."""
    if not bool(torch.isfinite(scores).all()):
        raise CalibrationError(f"got scores of {name} that are not finite, expected none.")
    n = scores.numel()
    above = math.floor(_exact(rate) * (n + 1))
    if above < 1:
        raise CalibrationError(
            f"got {n} ordinary prompts for {name}, expected at least {fewest_samples(rate)} "
            f"for a false-positive rate of {rate}."
        )
    return float(scores.flatten().sort().values[n - above])


def _parse(content: object) -> Calibration:
    """A calibration from parsed JSON; KeyError, TypeError or ValueError with the reason."""
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"expected a JSON object with format {_FORMAT!r}")
    names = [field.name for field in dataclasses.fields(Calibration)]
    missing = [name for name in names if name not in content]
    if missing:
        raise ValueError(f"expected {', '.join(missing)} in it")
    thresholds = {str(k): float(v) for k, v in dict(content["thresholds"]).items()}
    samples = {str(k): int(v) for k, v in dict(content["samples"]).items()}
    if not thresholds or not all(map(math.isfinite, thresholds.values())):
        raise ValueError("expected finite thresholds")
    return Calibration(
        model_hash=str(content["model_hash"]),
        settings=RunSettings(**content["settings"]),
        false_positive_rate=float(content["false_positive_rate"]),
        thresholds=thresholds,
        samples=samples,
        version=str(content["version"]),
    )

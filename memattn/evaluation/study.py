"""How well detectors do on a model whose truth is known, beside a control that knows nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memattn.detectors import Detector
from memattn.evaluation.calibration import Calibration, calibrate, model_hash
from memattn.evaluation.roc import Auroc, auroc
from memattn.evaluation.sampling import Pipeline, RunSettings, Samples, sample
from memattn.records import Field, Record

# Where 90 % of the ordinary scores lie, from the 5 % to the 95 % quantile.
_ORDINARY_RANGE = (0.05, 0.95)


class Case(NamedTuple):
    """One prompt with the seed of its image."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Cases:
    """The prompts that one kind of detector is measured on.

    Attributes:
        calibration: Ordinary prompts that set the thresholds and nothing else.
        memorized: Memorized prompts.
        ordinary: Ordinary prompts other than those of the calibration.
        others: Prompts that are scored and belong to neither.
    """

    calibration: tuple[Case, ...]
    memorized: tuple[Case, ...]
    ordinary: tuple[Case, ...]
    others: tuple[Case, ...] = ()

    @property
    def reported(self) -> tuple[Case, ...]:
        """Memorized, ordinary and other prompts, in this order."""
        return self.memorized + self.ordinary + self.others


@dataclass(frozen=True)
class DetectorResult:
    """What one detector achieved.

    Attributes:
        detector: The detector.
        auroc: Memorized against ordinary prompts.
        control: The same prompts on the control.
        threshold: Threshold from the calibration prompts.
        ordinary_range: Where 90 % of the calibration prompts' scores lie.
        memorized_flagged: Memorized prompts above the threshold.
        ordinary_flagged: Ordinary prompts above the threshold.
    """

    detector: Detector
    auroc: Auroc
    control: Auroc
    threshold: float
    ordinary_range: tuple[float, float]
    memorized_flagged: int
    ordinary_flagged: int


@dataclass(frozen=True)
class Study:
    """What `run_study` found.

    Attributes:
        calibration: Thresholds of all detectors.
        results: One per detector, in the order they were given.
        whole_runs: Images and record of `whole_run.reported`.
        scores: Detector name to its scores of `whole_runs` [B].
    """

    calibration: Calibration
    results: tuple[DetectorResult, ...]
    whole_runs: Samples
    scores: dict[str, Tensor]

    @property
    def flagged(self) -> Tensor:
        """Whether any detector's score is above its threshold, for `whole_runs` [B], bool."""
        above = [scores > self.calibration.thresholds[name] for name, scores in self.scores.items()]
        return torch.stack(above).any(dim=0)


def run_study(
    pipe: Pipeline,
    control: Pipeline,
    detectors: Sequence[Detector],
    *,
    first_call: Cases,
    whole_run: Cases,
    settings: RunSettings,
    false_positive_rate: float,
    batch_size: int,
    announce: Callable[[str], None],
) -> Study:
    """Calibrate detectors on ordinary prompts and measure them on others.

    Detectors that need one denoiser call are measured on `first_call`, all others on `whole_run`.

    Args:
        pipe: The pipeline under test.
        control: The same pipeline with a denoiser that has memorized nothing.
        detectors: Detectors to measure.
        first_call: Prompts for detectors with `one_call`.
        whole_run: Prompts for the others; their images are kept.
        settings: How to generate.
        false_positive_rate: Share of ordinary prompts that each threshold may flag.
        batch_size: Prompts per pipeline call.
        announce: Called with one sentence before each stretch of work.

    Returns:
        Calibration, figures and images.

    Raises:
        CalibrationError: If there are too few calibration prompts for the rate.
        RecordError: If a detector cannot read this pipeline's records.
    """

    def run(target: Pipeline, cases: Sequence[Case], one_call: bool) -> Samples:
        return sample(
            target,
            [case.prompt for case in cases],
            seeds=[case.seed for case in cases],
            settings=settings,
            batch_size=batch_size,
            fields=_fields(detectors, one_call),
            first_call_only=one_call,
        )

    settings = settings.resolve(pipe)
    ordinary_scores: dict[str, Tensor] = {}
    model_scores: dict[str, Tensor] = {}
    control_scores: dict[str, Tensor] = {}
    for one_call, cases in ((True, first_call), (False, whole_run)):
        chosen = [detector for detector in detectors if detector.one_call == one_call]
        length = "first call" if one_call else "whole run"
        announce(f"{len(cases.calibration)} ordinary prompts for the thresholds, {length}")
        ordinary_scores |= score(run(pipe, cases.calibration, one_call).record, chosen)
        announce(f"{len(cases.reported)} prompts to report on, {length}")
        samples = run(pipe, cases.reported, one_call)
        model_scores |= score(samples.record, chosen)
        compared = cases.memorized + cases.ordinary
        announce(f"{len(compared)} prompts on the control, {length}")
        control_scores |= score(run(control, compared, one_call).record, chosen)
    calibration = calibrate(
        ordinary_scores,
        model_hash=model_hash(pipe.unet),
        settings=settings,
        false_positive_rate=false_positive_rate,
    )
    return Study(
        calibration=calibration,
        results=tuple(
            _result(
                detector,
                first_call if detector.one_call else whole_run,
                ordinary_scores[detector.name],
                model_scores[detector.name],
                control_scores[detector.name],
                calibration.thresholds[detector.name],
            )
            for detector in detectors
        ),
        whole_runs=samples,
        scores=score(samples.record, detectors),
    )


def score(record: Record, detectors: Sequence[Detector]) -> dict[str, Tensor]:
    """Scores of all samples of a record.

    Args:
        record: One or more runs.
        detectors: Detectors that can read it.

    Returns:
        Detector name to scores [B].

    Raises:
        RecordError: If the record lacks what a detector needs.
    """
    return {detector.name: detector(record) for detector in detectors}


def ordinary_range(scores: Tensor) -> tuple[float, float]:
    """Where 90 % of ordinary scores lie.

    Args:
        scores: Scores of ordinary prompts [n].

    Returns:
        Their 5 % and 95 % quantiles.
    """
    low, high = scores.double().quantile(torch.tensor(_ORDINARY_RANGE, dtype=torch.float64))
    return float(low), float(high)


def _fields(detectors: Sequence[Detector], one_call: bool) -> tuple[Field, ...]:
    """What to record: whole runs are read by all detectors, first calls by one-call ones only."""
    readers = [detector for detector in detectors if detector.one_call or not one_call]
    return tuple(sorted({name for detector in readers for name in detector.needs}))


def _result(
    detector: Detector,
    cases: Cases,
    calibration_scores: Tensor,
    model_scores: Tensor,
    control_scores: Tensor,
    threshold: float,
) -> DetectorResult:
    """Figures of one detector from its scores, which stand in the order of `cases.reported`."""
    end = len(cases.memorized) + len(cases.ordinary)
    memorized, ordinary = (
        model_scores[: len(cases.memorized)],
        model_scores[len(cases.memorized) : end],
    )
    return DetectorResult(
        detector=detector,
        auroc=auroc(memorized, ordinary),
        control=auroc(
            control_scores[: len(cases.memorized)], control_scores[len(cases.memorized) :]
        ),
        threshold=threshold,
        ordinary_range=ordinary_range(calibration_scores),
        memorized_flagged=int((memorized > threshold).sum()),
        ordinary_flagged=int((ordinary > threshold).sum()),
    )

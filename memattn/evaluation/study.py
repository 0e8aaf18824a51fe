"""How well detectors do on a model whose truth is known, beside a control that knows nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memattn.detectors import Detector
from memattn.evaluation.calibration import Calibration, calibrate, model_hash
from memattn.evaluation.roc import Auroc, auroc
from memattn.evaluation.sampling import Pipeline, RunSettings, Samples, sample
from memattn.evaluation.scoring import needed_fields, ordinary_range, score


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
        return self.compared + self.others

    @property
    def compared(self) -> tuple[Case, ...]:
        """Memorized and ordinary prompts, in this order."""
        return self.memorized + self.ordinary


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
        above = [_flags(self.calibration, name, scores) for name, scores in self.scores.items()]
        return torch.tensor(above).any(dim=0)


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
) -> Study:
    """Calibrate detectors on ordinary prompts and measure them on others.

    Detectors that need one denoiser call are measured on `first_call`, all others on `whole_run`.
    Every stretch of work has its own progress bar on stderr.

    Args:
        pipe: The pipeline under test.
        control: The same pipeline with a denoiser that has memorized nothing.
        detectors: Detectors to measure.
        first_call: Prompts for detectors with `one_call`.
        whole_run: Prompts for the others; their images are kept.
        settings: How to generate.
        false_positive_rate: Share of ordinary prompts that each threshold may flag.
        batch_size: Prompts per pipeline call.

    Returns:
        Calibration, figures and images.

    Raises:
        CalibrationError: If there are too few calibration prompts for the rate.
        RecordError: If a detector cannot read this pipeline's records.
    """
    settings = settings.resolve(pipe)
    one_call = [detector for detector in detectors if detector.one_call]
    others = [detector for detector in detectors if not detector.one_call]

    def run(target: Pipeline, cases: Sequence[Case], label: str, **options: Any) -> Samples:  # noqa: ANN401 (those of `sample`)
        return sample(
            target,
            [case.prompt for case in cases],
            seeds=[case.seed for case in cases],
            settings=settings,
            batch_size=batch_size,
            label=f"{label}, {len(cases)} prompts",
            **options,
        )

    def first(target: Pipeline, cases: Sequence[Case], purpose: str) -> dict[str, Tensor]:
        label, fields = f"first call: {purpose}", needed_fields(one_call)
        samples = run(target, cases, label, fields=fields, first_call_only=True)
        return score(samples.record, one_call)

    def whole(target: Pipeline, cases: Sequence[Case], purpose: str) -> dict[str, Tensor]:
        label, fields = f"whole run: {purpose}", needed_fields(others)
        return score(run(target, cases, label, fields=fields, images=False).record, others)

    ordinary: dict[str, Tensor] = {}
    reported: dict[str, Tensor] = {}
    controls: dict[str, Tensor] = {}
    if one_call:
        ordinary |= first(pipe, first_call.calibration, "thresholds")
        reported |= first(pipe, first_call.compared, "measured")
        controls |= first(control, first_call.compared, "control")
    if others:
        ordinary |= whole(pipe, whole_run.calibration, "thresholds")
        controls |= whole(control, whole_run.compared, "control")
    whole_runs = run(
        pipe, whole_run.reported, "whole run: measured", fields=needed_fields(detectors)
    )
    whole_run_scores = score(whole_runs.record, detectors)
    reported |= {detector.name: whole_run_scores[detector.name] for detector in others}
    calibration = calibrate(
        ordinary,
        model_hash=model_hash(pipe),
        settings=settings,
        false_positive_rate=false_positive_rate,
    )
    return Study(
        calibration=calibration,
        results=tuple(
            _result(
                detector,
                first_call if detector.one_call else whole_run,
                ordinary[detector.name],
                reported[detector.name],
                controls[detector.name],
                calibration,
            )
            for detector in detectors
        ),
        whole_runs=whole_runs,
        scores=whole_run_scores,
    )


def _flags(calibration: Calibration, detector: str, scores: Tensor) -> list[bool]:
    """The verdict on each of one detector's scores."""
    return [calibration.verdict(detector, value) for value in scores.tolist()]


def _result(
    detector: Detector,
    cases: Cases,
    calibration_scores: Tensor,
    model_scores: Tensor,
    control_scores: Tensor,
    calibration: Calibration,
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
        threshold=calibration.thresholds[detector.name],
        ordinary_range=ordinary_range(calibration_scores),
        memorized_flagged=sum(_flags(calibration, detector.name, memorized)),
        ordinary_flagged=sum(_flags(calibration, detector.name, ordinary)),
    )

"""How well detectors do on a model whose truth is known, beside controls that know nothing."""

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from torch import Tensor
from tqdm import tqdm

from memattn.detectors import Detector
from memattn.errors import CalibrationError
from memattn.evaluation.bootstrap import Estimate
from memattn.evaluation.calibration import Calibration, calibrate, fewest_samples
from memattn.evaluation.cases import Case, Role, compared, localisable, rows_of
from memattn.evaluation.localisation import Localisation, localisation
from memattn.evaluation.roc import FEWEST_ORDINARY, Auroc, auroc, tpr_at_fpr
from memattn.evaluation.runs import Runs, identity, run_cases
from memattn.evaluation.sampling import sample
from memattn.evaluation.scores_file import StoredScores
from memattn.evaluation.scoring import needed_fields, ordinary_range, score
from memattn.evaluation.settings import Pipeline, RunSettings
from memattn.evaluation.store import check_identity, holds_batches
from memattn.evaluation.verdicts import f1_score
from memattn.evaluation.weights import model_hash
from memattn.records import Record

# Built when its turn comes and not kept: two models may not fit on a device at once.
Control = Callable[[], Pipeline] | StoredScores

ALL = "all"
NOT_COPIED = "shown, not copied"

_MODEL = "model"  # where its batches are kept in a store
_TIMED_BATCHES, _TIMED_WHOLE_BATCHES = 3, 2


@dataclass(frozen=True)
class DetectorResult:
    """What one detector achieved.

    Attributes:
        detector: The detector.
        auroc: Memorized against ordinary cases: "all" memorized ones, and by group where there is
            more than one, each against the same ordinary cases.
        tpr: Share of memorized cases found at 1 % false positives; None where ordinary cases are
            too few to tell.
        f1: F1 at the calibrated threshold.
        threshold: Threshold from the calibration cases.
        threshold_interval: Its 95 % interval.
        ordinary_range: Where 90 % of the calibration cases' scores lie.
        flagged: Group to how many of its cases are above the threshold, and of how many. Groups
            of memorized cases hold those alone; cases of such a group that play another part stand
            under "shown, not copied". Calibration cases are in none.
        controls: Control's name to the AUROC of the same cases there, all memorized ones.
        calls: Denoiser calls it needs per image: 1, or those of a whole run.
        seconds: Per prompt, for this detector alone: sampling and recording no more than it needs,
            without an image.
    """

    detector: Detector
    auroc: dict[str, Auroc]
    tpr: Estimate | None
    f1: Estimate
    threshold: float
    threshold_interval: tuple[float, float]
    ordinary_range: tuple[float, float]
    flagged: dict[str, tuple[int, int]]
    controls: dict[str, Auroc]
    calls: int
    seconds: float


@dataclass(frozen=True)
class LocaliserResult:
    """How well one detector's masks show the region that was copied.

    Attributes:
        name: Name of the detector.
        model: Over memorized cases whose true mask does not cover everything.
        controls: Control's name to the same there, for controls that were run here.
    """

    name: str
    model: Localisation
    controls: dict[str, Localisation]


@dataclass(frozen=True, eq=False)
class Study:
    """What `run_study` found.

    Attributes:
        calibration: Thresholds of all detectors.
        runs: The model's runs: scores, masks, images and traces of all cases.
        control_scores: Control's name to detector name to its scores of the memorized and of the
            ordinary cases; without detectors that have none there.
        control_models: Control's name to its `model_hash`.
        detectors: One per detector that can read the model, in the order they were given.
        localisers: One per detector that localises; empty without a true mask.
        settings: How the images were generated.
        sampled: Prompts run here, model and controls together.
        kept: How many of these a store held already.
    """

    calibration: Calibration
    runs: Runs
    control_scores: dict[str, dict[str, tuple[Tensor, Tensor]]]
    control_models: dict[str, str]
    detectors: tuple[DetectorResult, ...]
    localisers: tuple[LocaliserResult, ...]
    settings: RunSettings
    sampled: int
    kept: int

    @property
    def flagged(self) -> list[bool]:
        """Whether any detector's score is above its threshold, for every case of `runs`."""
        verdicts = [
            [self.calibration.verdict(name, value) for value in scores.tolist()]
            for name, scores in self.runs.scores.items()
        ]
        return [any(of_case) for of_case in zip(*verdicts, strict=True)]

    def flagged_by(self, detector: str, role: Role) -> tuple[int, int]:
        """How many cases of a role a detector flags, and of how many.

        Args:
            detector: Name of the detector.
            role: The role.

        Returns:
            Cases above the threshold, and all of them.
        """
        scores = self.runs.scores[detector][rows_of(self.runs.cases, role)].tolist()
        return sum(self.calibration.verdict(detector, value) for value in scores), len(scores)

    def control_areas(self, detector: str, control: str) -> dict[str, Auroc]:
        """AUROC on a control of each group of memorized cases, where there is more than one.

        Args:
            detector: Name of a detector that has scores there.
            control: Name of the control.

        Returns:
            Group to its AUROC against the same ordinary cases as all groups.
        """
        memorized, ordinary = self.control_scores[control][detector]
        groups = _places_by_group(compared(self.runs.cases))
        return {group: auroc(memorized[places], ordinary) for group, places in groups.items()}


def run_study(
    pipe: Pipeline,
    controls: Mapping[str, Control],
    detectors: Sequence[Detector],
    cases: Sequence[Case],
    settings: RunSettings,
    *,
    false_positive_rate: float,
    batch_size: int,
    store: Path | None = None,
    model: str | None = None,
) -> Study:
    """Calibrate detectors on the calibration cases and measure them on the others.

    Every stretch of work has its own progress bar on stderr. Detectors that cannot read the model
    are named there and left out.

    Args:
        pipe: The pipeline under test.
        controls: Name to a model that has memorized nothing: what builds its pipeline, or the
            scores it gave the same cases before. Controls run the memorized and ordinary cases
            only, one after the other; no pipeline is kept.
        detectors: Detectors to measure.
        cases: Cases of roles "calibration", "memorized" and "ordinary", perhaps also "other".
        settings: How to generate.
        false_positive_rate: Share of ordinary prompts that each threshold may flag.
        batch_size: Images per pipeline call.
        store: Folder that keeps finished batches, so that a killed study goes on; None for none.
        model: `model_hash` of the pipeline where it is known.

    Returns:
        Calibration, figures and runs.

    Raises:
        CalibrationError: If there are too few calibration cases for the rate.
        InputError: If stored scores are no control of this model, or the store holds other work.
        RecordError: If no detector can read the model.
        ValueError: If there are no memorized or no ordinary cases.
    """
    _require_cases(cases, false_positive_rate)
    settings = settings.resolve(pipe)
    model = model or model_hash(pipe)
    pair = compared(cases)
    for control in controls.values():
        if isinstance(control, StoredScores):  # before hours of sampling, not after
            names = [detector.name for detector in detectors]
            control.check(pair, names, model=model, settings=settings)
    if store is not None:
        _check_stores(store, pipe, controls, detectors, cases, settings, batch_size, model)
    runs = run_cases(
        pipe,
        cases,
        detectors,
        settings,
        batch_size=batch_size,
        store=None if store is None else store / _MODEL,
        label="model",
        model=model,
    )
    readable = [detector for detector in detectors if detector.name in runs.scores]
    control_scores: dict[str, dict[str, Tensor]] = {}
    control_masks: dict[str, dict[str, Tensor]] = {}
    control_models: dict[str, str] = {}
    sampled, kept = len(cases), runs.kept
    for position, (name, control) in enumerate(controls.items()):
        if isinstance(control, StoredScores):
            control_scores[name] = control.of(pair, [detector.name for detector in readable])
            control_models[name] = control.model
            continue
        built = control()
        control_models[name] = model_hash(built)
        found = run_cases(
            built,
            pair,
            readable,
            settings,
            batch_size=batch_size,
            store=None if store is None else store / _control_folder(position),
            label=f"control {name}",
            images=False,
            model=control_models[name],
        )
        del built
        gc.collect()  # a network that was recorded is part of a reference cycle
        control_scores[name], control_masks[name] = found.scores, found.masks
        sampled, kept = sampled + len(pair), kept + found.kept
    calibration = calibrate(
        {name: scores[rows_of(cases, "calibration")] for name, scores in runs.scores.items()},
        model_hash=model,
        settings=settings,
        false_positive_rate=false_positive_rate,
    )
    seconds = {
        detector.name: _seconds(pipe, detector, cases, settings, batch_size)
        for detector in tqdm(readable, desc="timing", unit="detector")
    }
    split = {
        name: {
            detector: (scores[rows_of(pair, "memorized")], scores[rows_of(pair, "ordinary")])
            for detector, scores in of_control.items()
        }
        for name, of_control in control_scores.items()
    }
    return Study(
        calibration=calibration,
        runs=runs,
        control_scores=split,
        control_models=control_models,
        detectors=tuple(
            _result(detector, runs, split, calibration, seconds[detector.name])
            for detector in readable
        ),
        localisers=_localisers(runs, pair, control_masks),
        settings=settings,
        sampled=sampled,
        kept=kept,
    )


def _control_folder(position: int) -> str:
    """Where the batches of a control are kept in the study's store."""
    return f"control-{position}"


def _check_stores(
    store: Path,
    pipe: Pipeline,
    controls: Mapping[str, Control],
    detectors: Sequence[Detector],
    cases: Sequence[Case],
    settings: RunSettings,
    batch_size: int,
    model: str,
) -> None:
    """Refuse a store with other work, of the model or of a control, before any is done.

    A control with batches there is built for its weights' hash, and not kept. Which detectors it
    is scored by is known only when the model has run, and follows from the rest.
    """
    own = identity(pipe, cases, detectors, settings, batch_size, model, images=True)
    check_identity(store / _MODEL, own, root=store)
    for position, control in enumerate(controls.values()):
        folder = store / _control_folder(position)
        if isinstance(control, StoredScores) or not holds_batches(folder):
            continue
        parts = identity(
            control(), compared(cases), detectors, settings, batch_size, None, images=False
        )
        gc.collect()
        del parts["detectors"]
        check_identity(folder, parts, root=store)


def _require_cases(cases: Sequence[Case], false_positive_rate: float) -> None:
    """Refuse cases that give no figures, before hours of sampling and not after."""
    for role in ("memorized", "ordinary"):
        if not any(case.role == role for case in cases):
            raise ValueError(f"got no {role} cases, expected at least one")
    found = sum(case.role == "calibration" for case in cases)
    needed = fewest_samples(false_positive_rate)
    if found < needed:
        raise CalibrationError(
            f"got {found} calibration prompts, expected at least {needed} for a false-positive "
            f"rate of {false_positive_rate:g}."
        )


def _seconds(
    pipe: Pipeline,
    detector: Detector,
    cases: Sequence[Case],
    settings: RunSettings,
    batch_size: int,
) -> float:
    """Seconds per prompt of a detector that is used alone, the median of a few whole batches."""

    def run(part: Sequence[Case], *, first_call_only: bool) -> Record:
        return sample(
            pipe,
            [case.prompt for case in part],
            seeds=[case.seed for case in part],
            settings=settings,
            fields=needed_fields([detector]),
            first_call_only=first_call_only,
            images=False,
        ).record

    run(cases[:batch_size], first_call_only=True)  # warms up
    batches = _TIMED_BATCHES if detector.one_call else _TIMED_WHOLE_BATCHES
    starts = range(0, max(len(cases) - batch_size + 1, 1), batch_size)[:batches]
    seconds = []
    for start in starts:
        part = cases[start : start + batch_size]
        begin = perf_counter()
        score(run(part, first_call_only=detector.one_call), [detector])
        seconds.append((perf_counter() - begin) / len(part))
    return median(seconds)


def _result(
    detector: Detector,
    runs: Runs,
    controls: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]],
    calibration: Calibration,
    seconds: float,
) -> DetectorResult:
    """Figures of one detector."""
    name = detector.name
    scores = runs.scores[name]
    memorized = rows_of(runs.cases, "memorized")
    ordinary = scores[rows_of(runs.cases, "ordinary")]
    groups = _places_by_group(runs.cases)
    parts = {ALL: memorized} | {
        group: [memorized[place] for place in places] for group, places in groups.items()
    }
    threshold = calibration.thresholds[name]
    return DetectorResult(
        detector=detector,
        auroc={part: auroc(scores[rows], ordinary) for part, rows in parts.items()},
        tpr=tpr_at_fpr(scores[memorized], ordinary) if len(ordinary) >= FEWEST_ORDINARY else None,
        f1=f1_score(scores[memorized], ordinary, threshold),
        threshold=threshold,
        threshold_interval=calibration.intervals[name],
        ordinary_range=ordinary_range(scores[rows_of(runs.cases, "calibration")]),
        flagged=_flagged(runs.cases, scores, threshold),
        controls={
            control: auroc(*of_control[name])
            for control, of_control in controls.items()
            if name in of_control
        },
        calls=1 if detector.one_call else runs.calls,
        seconds=seconds,
    )


def _places_by_group(cases: Sequence[Case]) -> dict[str, list[int]]:
    """Group to the places of its cases among the memorized ones; empty if there is one group."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(rows_of(cases, "memorized")):
        found.setdefault(cases[row].group, []).append(place)
    return found if len(found) > 1 else {}


def _flagged(cases: Sequence[Case], scores: Tensor, threshold: float) -> dict[str, tuple[int, int]]:
    """Group to cases above the threshold and cases in all, without those of the calibration."""
    memorized = {case.group for case in cases if case.role == "memorized"}
    counts: dict[str, tuple[int, int]] = {}
    for case, value in zip(cases, scores.tolist(), strict=True):
        if case.role == "calibration":
            continue
        is_uncopied = case.role == "other" and case.group in memorized
        group = NOT_COPIED if is_uncopied else case.group
        flagged, count = counts.get(group, (0, 0))
        counts[group] = (flagged + (value > threshold), count + 1)
    return counts


def _localisers(
    runs: Runs, pair: Sequence[Case], control_masks: Mapping[str, Mapping[str, Tensor]]
) -> tuple[LocaliserResult, ...]:
    """Masks against the true masks of the memorized cases that have one with an outside."""

    def found(cases: Sequence[Case], masks: Tensor) -> Localisation:
        regions = localisable(cases)
        return localisation(masks[list(regions)], np.stack(list(regions.values())))

    if not localisable(pair):
        return ()
    return tuple(
        LocaliserResult(
            name=name,
            model=found(runs.cases, masks),
            controls={
                control: found(pair, of_control[name])
                for control, of_control in control_masks.items()
                if name in of_control
            },
        )
        for name, masks in runs.masks.items()
    )

"""The study on a tiny model: what is measured on what, against figures computed separately."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from memattn.detectors import LayerEntropy, NoiseMagnitude
from memattn.detectors.bright_ending import BrightEnding
from memattn.errors import CalibrationError, InputError
from memattn.evaluation.cases import Case, compared, rows_of
from memattn.evaluation.localisation import localisation
from memattn.evaluation.random_weights import with_random_denoiser
from memattn.evaluation.roc import auroc, tpr_at_fpr
from memattn.evaluation.runs import run_cases
from memattn.evaluation.scores_file import StoredScores
from memattn.evaluation.scoring import ordinary_range
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.study import NOT_COPIED, run_study
from memattn.evaluation.verdicts import f1_score
from tests.pipelines import stable_diffusion

DETECTORS = (NoiseMagnitude(), BrightEnding())
SETTINGS = RunSettings(steps=2)
REGION = np.zeros((16, 16), bool)
REGION[:, :8] = True
CASES = (
    Case("a red fox", 0, "calibration", "ordinary"),
    Case("a fox", 3, "memorized", "template", 1000, REGION),
    Case("the lazy dog", 1, "calibration", "ordinary"),
    Case("a dog", 4, "memorized", "verbatim", 1000, np.ones((16, 16), bool)),
    Case("the dog", 9, "memorized", "template", 1000, ~REGION),
    Case("the sea", 5, "ordinary", "ordinary", 0),
    Case("a blue house", 2, "calibration", "ordinary"),
    Case("the house", 6, "ordinary", "ordinary", 0),
    Case("blue sea", 7, "ordinary", "ordinary", 0),
    Case("the red house", 8, "other", "template", 900, REGION),
    Case("by the sea", 10, "other", "seen_once", 1),
)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def control(pipe):
    return with_random_denoiser(pipe)


def run(pipe, controls, *, cases=CASES, detectors=DETECTORS, rate=0.25, store=None):
    return run_study(
        pipe,
        controls,
        detectors,
        cases,
        SETTINGS,
        false_positive_rate=rate,
        batch_size=4,
        store=store,
    )


@pytest.fixture(scope="module")
def study(pipe, control):
    return run(pipe, {"random": control})


@pytest.fixture(scope="module")
def scores(pipe):
    runs = run_cases(
        pipe, CASES, DETECTORS, SETTINGS, batch_size=4, store=None, label="apart", images=False
    )
    return runs.scores


@pytest.fixture(scope="module")
def stored(pipe, control):
    cases = compared(CASES)[::-1]
    runs = run_cases(
        control, cases, DETECTORS, SETTINGS, batch_size=4, store=None, label="stored", images=False
    )
    return StoredScores("earlier.csv", runs.cases, runs.scores)


def test_areas_are_those_of_a_separate_run(study, scores):
    for result in study.detectors:
        values = scores[result.detector.name]
        ordinary = values[[5, 7, 8]]
        assert list(result.auroc) == ["all", "template", "verbatim"]
        assert result.auroc["all"] == auroc(values[[1, 3, 4]], ordinary)
        assert result.auroc["template"] == auroc(values[[1, 4]], ordinary)
        assert result.auroc["verbatim"] == auroc(values[[3]], ordinary)


def test_thresholds_come_from_the_calibration_prompts_alone(study, scores):
    for result in study.detectors:
        name, values = result.detector.name, scores[result.detector.name]
        assert result.threshold == float(values[[0, 2, 6]].max())
        assert result.threshold_interval == study.calibration.intervals[name]
        assert result.ordinary_range == ordinary_range(values[[0, 2, 6]])
        assert result.f1 == f1_score(values[[1, 3, 4]], values[[5, 7, 8]], result.threshold)
        assert study.calibration.samples[name] == 3


def test_flagged_are_counted_by_group_without_the_calibration(study, scores):
    rows = {
        "template": [1, 4],
        "verbatim": [3],
        "ordinary": [5, 7, 8],
        NOT_COPIED: [9],
        "seen_once": [10],
    }
    for result in study.detectors:
        above = scores[result.detector.name] > result.threshold
        expected = {group: (int(above[r].sum()), len(r)) for group, r in rows.items()}
        assert result.flagged == expected
        assert study.flagged_by(result.detector.name, "memorized") == (
            int(above[[1, 3, 4]].sum()),
            3,
        )
    any_above = torch.stack(
        [scores[result.detector.name] > result.threshold for result in study.detectors]
    )
    assert study.flagged == any_above.any(dim=0).tolist()


def test_controls_are_the_same_prompts_elsewhere_run_or_stored(study, pipe, control, stored):
    for name in ("NoiseMagnitude", "BrightEnding"):
        memorized, ordinary = study.control_scores["random"][name]
        rows = {(case.prompt, case.seed): row for row, case in enumerate(stored.cases)}
        for found, role in ((memorized, "memorized"), (ordinary, "ordinary")):
            wanted = [rows[CASES[row].prompt, CASES[row].seed] for row in rows_of(CASES, role)]
            torch.testing.assert_close(found, stored.scores[name][wanted], rtol=1e-4, atol=1e-5)
    again = run(pipe, {"earlier": stored, "random": control})
    for before, result in zip(study.detectors, again.detectors, strict=True):
        assert list(result.controls) == ["earlier", "random"]
        assert result.controls["random"] == before.controls["random"]
        assert result.controls["earlier"].value == result.controls["random"].value
        own = study.runs.scores[result.detector.name][rows_of(CASES, "memorized")]
        assert not torch.equal(study.control_scores["random"][result.detector.name][0], own)
    assert list(again.localisers[0].controls) == ["random"]  # no masks are stored


def test_stored_scores_that_lack_a_case_are_refused_before_anything_is_made(pipe, stored):
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    short = dataclasses.replace(stored, cases=stored.cases[:-1])
    with pytest.raises(InputError, match=r"earlier.csv without 1 of 6 prompts, first 'a fox'"):
        run(pipe, {"earlier": short})
    handle.remove()
    assert calls == []


def test_localisers_are_judged_where_the_true_mask_has_an_outside(study):
    (found,) = study.localisers
    assert found.name == "BrightEnding"
    truth = np.stack([REGION, ~REGION])
    assert found.model == localisation(study.runs.masks["BrightEnding"][[1, 4]], truth)
    assert found.controls["random"].samples == 2
    assert found.controls["random"] != found.model


def test_without_true_masks_no_localiser_is_judged(pipe):
    cases = [dataclasses.replace(case, true_mask=None, group="x") for case in CASES]
    study = run(pipe, {}, cases=cases)
    assert study.localisers == ()
    assert [list(result.auroc) for result in study.detectors] == [["all"], ["all"]]
    assert [result.controls for result in study.detectors] == [{}, {}]


def test_calls_and_seconds_are_those_that_a_detector_needs(study):
    first, whole = study.detectors
    assert (first.calls, whole.calls) == (1, 2)
    assert 0 < first.seconds < whole.seconds == study.runs.seconds


def test_without_a_one_call_detector_no_run_is_stopped(pipe):
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    run(pipe, {}, detectors=DETECTORS[1:])
    handle.remove()
    assert len(calls) == 2 * math.ceil(len(CASES) / 4)


def test_the_true_positive_rate_takes_two_hundred_ordinary_prompts(pipe, study):
    assert [result.tpr for result in study.detectors] == [None, None]
    many = tuple(Case("the sea", 100 + n, "ordinary", "ordinary") for n in range(197))
    big = run(pipe, {}, cases=CASES + many, detectors=DETECTORS[:1])
    values = big.runs.scores["NoiseMagnitude"]
    ordinary = values[rows_of(big.runs.cases, "ordinary")]
    assert big.detectors[0].tpr == tpr_at_fpr(values[[1, 3, 4]], ordinary)


def test_a_detector_that_cannot_read_the_model_is_left_out(pipe, control):
    study = run(pipe, {"random": control}, detectors=(LayerEntropy(layer=99), NoiseMagnitude()))
    assert [result.detector.name for result in study.detectors] == ["NoiseMagnitude"]
    assert list(study.runs.unreadable) == ["LayerEntropy(layer=99)"]
    assert list(study.calibration.thresholds) == ["NoiseMagnitude"]


def test_model_and_controls_are_kept_apart_in_the_store(pipe, control, study, tmp_path):
    for _ in range(2):
        found = run(pipe, {"random": control}, store=tmp_path)
        assert [r.auroc for r in found.detectors] == [r.auroc for r in study.detectors]
        assert [r.controls for r in found.detectors] == [r.controls for r in study.detectors]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control-0", "model"]


def test_cases_that_give_no_figures_are_refused_before_anything_is_made(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "unet", None)
    with pytest.raises(CalibrationError, match="got 3 calibration prompts, expected at least 99"):
        run(pipe, {}, rate=0.01)
    for role in ("memorized", "ordinary"):
        with pytest.raises(ValueError, match=f"got no {role} cases"):
            run(pipe, {}, cases=[case for case in CASES if case.role != role])

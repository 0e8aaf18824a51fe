"""The study on a tiny model: what is measured on what, against figures computed separately."""

import re

import pytest
import torch

from memattn.detectors import NoiseMagnitude
from memattn.detectors.bright_ending import BrightEnding
from memattn.evaluation.roc import auroc
from memattn.evaluation.sampling import RunSettings, sample
from memattn.evaluation.scoring import ordinary_range
from memattn.evaluation.study import Case, Cases, run_study
from tests.pipelines import stable_diffusion

DETECTORS = (NoiseMagnitude(), BrightEnding())
SETTINGS = RunSettings(steps=2)
CALIBRATION = (Case("a red fox", 0), Case("the lazy dog", 1), Case("a blue house", 2))
MEMORIZED = (Case("a fox", 3), Case("a dog", 4))
ORDINARY = (Case("the sea", 5), Case("the house", 6), Case("blue sea", 7))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def control(tmp_path_factory):
    pipe = stable_diffusion(tmp_path_factory.mktemp("tokenizer"))
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config).eval()
    return pipe


@pytest.fixture(scope="module")
def study(pipe, control):
    cases = Cases(CALIBRATION, MEMORIZED, ORDINARY, others=(Case("by the sea", 8),))
    first_call = Cases(CALIBRATION, MEMORIZED, ORDINARY[:2])
    return run(pipe, control, DETECTORS, first_call, cases)


def run(pipe, control, detectors, first_call, whole_run):
    return run_study(
        pipe,
        control,
        detectors,
        first_call=first_call,
        whole_run=whole_run,
        settings=SETTINGS,
        false_positive_rate=0.25,
        batch_size=3,
    )


def scores_of(pipe, detector, cases):
    samples = sample(
        pipe,
        [case.prompt for case in cases],
        seeds=[case.seed for case in cases],
        settings=SETTINGS,
        batch_size=3,
        progress=False,
    )
    return detector(samples.record)


@pytest.mark.parametrize(
    ("index", "detector", "ordinary"), [(0, DETECTORS[0], 2), (1, DETECTORS[1], 3)]
)
def test_areas_are_those_of_a_separate_run(study, pipe, control, index, detector, ordinary):
    cases = MEMORIZED + ORDINARY[:ordinary]
    for target, found in (
        (pipe, study.results[index].auroc),
        (control, study.results[index].control),
    ):
        values = scores_of(target, detector, cases)
        expected = auroc(values[:2], values[2:])
        assert found.value == pytest.approx(expected.value)
        assert (found.memorized, found.ordinary) == (2, ordinary)


def test_thresholds_come_from_the_calibration_prompts_alone(study, pipe):
    for result in study.results:
        values = scores_of(pipe, result.detector, CALIBRATION)
        assert result.threshold == pytest.approx(float(values.max()), rel=1e-4)
        assert result.ordinary_range == pytest.approx(ordinary_range(values), rel=1e-4)


def test_flagged_counts_are_those_of_the_whole_runs(study):
    bright = study.results[1]
    above = study.scores["BrightEnding"] > bright.threshold
    assert bright.memorized_flagged == int(above[:2].sum())
    assert bright.ordinary_flagged == int(above[2:5].sum())
    magnitude = study.scores["NoiseMagnitude"] > study.calibration.thresholds["NoiseMagnitude"]
    assert torch.equal(study.flagged, above | magnitude)


def test_whole_runs_hold_images_and_scores_of_all_reported_prompts(study):
    assert len(study.whole_runs.images) == 6
    assert {name: len(values) for name, values in study.scores.items()} == {
        "NoiseMagnitude": 6,
        "BrightEnding": 6,
    }


LABELS = {
    "first call: thresholds, 3 prompts",
    "first call: measured, 4 prompts",
    "first call: control, 4 prompts",
    "whole run: thresholds, 3 prompts",
    "whole run: control, 4 prompts",
    "whole run: measured, 4 prompts",
}


@pytest.mark.parametrize(
    ("detectors", "missing"), [(DETECTORS[:1], "whole run: [tc]"), (DETECTORS[1:], "first call")]
)
def test_stretches_without_a_detector_are_skipped(pipe, control, detectors, missing, capfd):
    cases = Cases(CALIBRATION, MEMORIZED, ORDINARY[:2])
    study = run(pipe, control, detectors, cases, cases)
    assert [result.detector for result in study.results] == list(detectors)
    assert len(study.whole_runs.images) == 4
    err = capfd.readouterr().err
    assert {label for label in LABELS if label in err} == {
        label for label in LABELS if not re.match(missing, label)
    }


def test_thresholds_and_control_decode_no_image(pipe, control, monkeypatch):
    decoded = []
    for target in (pipe, control):
        decode = target.vae.decode
        monkeypatch.setattr(
            target.vae,
            "decode",
            lambda z, *a, d=decode, **k: decoded.append(len(z)) or d(z, *a, **k),
        )
    cases = Cases(CALIBRATION, MEMORIZED, ORDINARY[:2])
    run(pipe, control, DETECTORS, cases, cases)
    assert sum(decoded) == 4

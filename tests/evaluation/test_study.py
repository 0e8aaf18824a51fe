"""The study on a tiny model: what is measured on what, against figures computed separately."""

import dataclasses
import shutil
import time
import weakref

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
from memattn.evaluation.weights import model_hash
from tests.pipelines import stable_diffusion

DETECTORS = (NoiseMagnitude(), BrightEnding())
SETTINGS = RunSettings(steps=2)
REGION, OTHER_REGION = np.zeros((2, 16, 16), bool)
REGION[1:5, 2:13] = True
OTHER_REGION[4:, 9:12] = True
CASES = (
    Case("a red fox", 0, "calibration", "ordinary"),
    Case("a fox", 3, "memorized", "template", 1000, REGION),
    Case("the lazy dog", 1, "calibration", "ordinary"),
    Case("a dog", 4, "memorized", "verbatim", 1000, np.ones((16, 16), bool)),
    Case("the sea", 5, "ordinary", "ordinary", 0),
    Case("the dog", 9, "memorized", "template", 1000, OTHER_REGION),
    Case("a blue house", 2, "calibration", "ordinary"),
    Case("the house", 6, "ordinary", "ordinary", 0),
    Case("blue sea", 7, "ordinary", "ordinary", 0),
    Case("the red house", 8, "other", "template", 900, REGION),
    Case("by the sea", 10, "other", "seen_once", 1),
)
MEMORIZED, ORDINARY, CALIBRATION = [1, 3, 5], [4, 7, 8], [0, 2, 6]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("tokenizer"))


def settings_in_words(pipe):
    settings = dataclasses.asdict(SETTINGS.resolve(pipe))
    return " ".join(f"{name}={value}" for name, value in settings.items())


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
    return run(pipe, {"random": lambda: control})


@pytest.fixture(scope="module")
def scores(pipe):
    runs = run_cases(
        pipe, CASES, DETECTORS, SETTINGS, batch_size=4, store=None, label="apart", images=False
    )
    return runs.scores


@pytest.fixture(scope="module")
def control_runs(control):
    cases = compared(CASES)
    return run_cases(
        control, cases, DETECTORS, SETTINGS, batch_size=4, store=None, label="apart", images=False
    )


@pytest.fixture(scope="module")
def stored(pipe, control, control_runs):
    rows = [4, 1, 5, 0, 3, 2]
    return StoredScores(
        source="earlier.csv",
        model=model_hash(control),
        settings=settings_in_words(pipe),
        cases=tuple(control_runs.cases[row] for row in rows),
        scores={name: values[rows] for name, values in control_runs.scores.items()},
    )


def test_areas_are_those_of_a_separate_run(study, scores):
    for result in study.detectors:
        values = scores[result.detector.name]
        ordinary = values[ORDINARY]
        assert list(result.auroc) == ["all", "template", "verbatim"]
        assert result.auroc["all"] == auroc(values[MEMORIZED], ordinary)
        assert result.auroc["template"] == auroc(values[[1, 5]], ordinary)
        assert result.auroc["verbatim"] == auroc(values[[3]], ordinary)


def test_thresholds_come_from_the_calibration_prompts_alone(study, scores):
    for result in study.detectors:
        name, values = result.detector.name, scores[result.detector.name]
        assert result.threshold == float(values[CALIBRATION].max())
        assert result.threshold_interval == study.calibration.intervals[name]
        assert result.ordinary_range == ordinary_range(values[CALIBRATION])
        assert result.f1 == f1_score(values[MEMORIZED], values[ORDINARY], result.threshold)
        assert study.calibration.samples[name] == 3


def test_flagged_are_counted_by_group_without_the_calibration(study, scores):
    rows = {
        "template": [1, 5],
        "verbatim": [3],
        "ordinary": ORDINARY,
        NOT_COPIED: [9],
        "seen_once": [10],
    }
    for result in study.detectors:
        above = scores[result.detector.name] > result.threshold
        expected = {group: (int(above[r].sum()), len(r)) for group, r in rows.items()}
        assert result.flagged == expected
        assert study.flagged_by(result.detector.name, "memorized") == (
            int(above[MEMORIZED].sum()),
            3,
        )
    any_above = torch.stack(
        [scores[result.detector.name] > result.threshold for result in study.detectors]
    )
    assert study.flagged == any_above.any(dim=0).tolist()


def test_controls_are_the_same_prompts_elsewhere_run_or_stored(
    study, pipe, control, control_runs, stored
):
    again = run(pipe, {"earlier": stored, "random": lambda: control})
    assert list(again.control_scores) == ["earlier", "random"]
    assert again.control_models == dict.fromkeys(("earlier", "random"), model_hash(control))
    for of_control in (study.control_scores["random"], *again.control_scores.values()):
        assert list(of_control) == ["NoiseMagnitude", "BrightEnding"]
        for name, (memorized, ordinary) in of_control.items():
            assert torch.equal(memorized, control_runs.scores[name][[0, 1, 3]])
            assert torch.equal(ordinary, control_runs.scores[name][[2, 4, 5]])
    for before, result in zip(study.detectors, again.detectors, strict=True):
        values = control_runs.scores[result.detector.name]
        expected = auroc(values[[0, 1, 3]], values[[2, 4, 5]])
        assert before.controls == {"random": expected}
        assert result.controls == {"earlier": expected, "random": expected}
    assert list(again.localisers[0].controls) == ["random"]  # no masks are stored


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cases": ()}, r"earlier.csv without 6 of 6 prompts, first 'a fox'"),
        ({"scores": {"Other": torch.zeros(6)}}, "by Other, expected at least one of NoiseMag"),
        ({"settings": "steps=3"}, r"made with steps=3, expected steps=2 guidance_scale=7.5 height"),
    ],
)
def test_stored_scores_that_are_no_control_are_refused_before_anything_is_made(
    pipe, stored, change, sentence
):
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match=sentence):
        run(pipe, {"earlier": dataclasses.replace(stored, **change)})
    with pytest.raises(InputError, match="of the model under test itself"):
        run(pipe, {"earlier": dataclasses.replace(stored, model=model_hash(pipe))})
    handle.remove()
    assert calls == []


def test_a_control_has_figures_for_the_detectors_that_it_shares(pipe, stored):
    scores = {"NoiseMagnitude": stored.scores["NoiseMagnitude"]}
    study = run(pipe, {"earlier": dataclasses.replace(stored, scores=scores)})
    assert [list(result.controls) for result in study.detectors] == [["earlier"], []]


def test_one_control_at_a_time_is_built_and_none_is_kept(pipe):
    built, calls, alive_then, calls_then = [], [], [], []

    def build():
        alive_then.append([reference() for reference in built])
        calls_then.append(len(calls))
        control = with_random_denoiser(pipe)
        built.append(weakref.ref(control.unet))
        return control

    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    run(pipe, {"one": build, "two": build})
    handle.remove()
    assert alive_then == [[], [None]]
    assert calls_then == [6, 6]  # three batches of the model's own
    assert built[1]() is None


def test_localisers_are_judged_where_the_true_mask_has_an_outside(study, control_runs):
    (found,) = study.localisers
    assert found.name == "BrightEnding"
    truth = np.stack([REGION, OTHER_REGION])
    assert found.model == localisation(study.runs.masks["BrightEnding"][[1, 5]], truth)
    there = localisation(control_runs.masks["BrightEnding"][[0, 3]], truth)
    assert found.controls == {"random": there}
    assert there != found.model


def test_without_true_masks_no_localiser_is_judged(pipe):
    cases = [dataclasses.replace(case, true_mask=None, group="x") for case in CASES]
    study = run(pipe, {}, cases=cases)
    assert study.localisers == ()
    assert [list(result.auroc) for result in study.detectors] == [["all"], ["all"]]
    assert [result.controls for result in study.detectors] == [{}, {}]


class SlowMagnitude(NoiseMagnitude):
    """Takes as long as no other part of a tiny model."""

    def __call__(self, record):
        time.sleep(1.0)
        return super().__call__(record)


def test_calls_and_seconds_are_those_that_a_detector_needs(pipe):
    decoder = pipe.vae.decoder.register_forward_hook(lambda *_: time.sleep(1.0))
    calls = pipe.unet.register_forward_pre_hook(lambda *_: time.sleep(0.1))
    cases = CASES[:9]  # two whole batches, and one of a single case
    study = run(
        pipe,
        {},
        cases=cases,
        detectors=(NoiseMagnitude(), NoiseMagnitude(calls="all"), SlowMagnitude()),
    )
    decoder.remove()
    calls.remove()
    first, whole, slow = study.detectors
    assert [result.calls for result in study.detectors] == [1, 2, 1]
    assert 0.1 / 4 < first.seconds < 0.2 / 4
    assert 0.2 / 4 < whole.seconds < 1.0 / 4  # neither decoding nor the slow one is its own
    assert 1.1 / 4 < slow.seconds < 1.5 / 4


def test_the_true_positive_rate_takes_two_hundred_ordinary_prompts(pipe, study):
    assert [result.tpr for result in study.detectors] == [None, None]
    many = tuple(Case("the sea", 100 + n, "ordinary", "ordinary") for n in range(197))
    big = run(pipe, {}, cases=CASES + many, detectors=DETECTORS[:1])
    values = big.runs.scores["NoiseMagnitude"]
    ordinary = values[rows_of(big.runs.cases, "ordinary")]
    assert big.detectors[0].tpr == tpr_at_fpr(values[MEMORIZED], ordinary)


def test_a_detector_that_cannot_read_the_model_is_left_out(pipe, control):
    study = run(
        pipe, {"random": lambda: control}, detectors=(LayerEntropy(layer=99), NoiseMagnitude())
    )
    assert [result.detector.name for result in study.detectors] == ["NoiseMagnitude"]
    assert list(study.runs.unreadable) == ["LayerEntropy(layer=99)"]
    assert list(study.calibration.thresholds) == ["NoiseMagnitude"]


def test_model_and_controls_are_kept_apart_in_the_store(pipe, control, study, tmp_path):
    for _ in range(2):
        found = run(pipe, {"random": lambda: control}, store=tmp_path)
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


def test_a_controls_area_is_there_for_every_group(study, control_runs):
    for name, values in control_runs.scores.items():
        assert study.control_areas(name, "random") == {
            "template": auroc(values[[0, 3]], values[[2, 4, 5]]),
            "verbatim": auroc(values[[1]], values[[2, 4, 5]]),
        }


def test_other_work_of_a_control_is_refused_before_the_model_is_run(pipe, control, tmp_path):
    run(pipe, {"random": lambda: control}, store=tmp_path)
    shutil.rmtree(tmp_path / "model")
    other = with_random_denoiser(pipe)
    with torch.no_grad():
        other.unet.conv_out.bias += 1
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match=f"in {tmp_path} of other model than .* remove that"):
        run(pipe, {"other": lambda: other}, store=tmp_path)
    with pytest.raises(InputError, match=f"in {tmp_path} of other prompts or seeds than"):
        run(pipe, {"random": lambda: control}, cases=CASES[:8], store=tmp_path)
    handle.remove()
    assert calls == []


def test_runs_that_were_there_already_are_counted(pipe, control, tmp_path):
    first = run(pipe, {"random": lambda: control}, store=tmp_path)
    assert (first.sampled, first.kept) == (17, 0)
    (tmp_path / "model" / "batch-00002.safetensors").unlink()
    (tmp_path / "control-0" / "batch-00000.safetensors").unlink()
    again = run(pipe, {"random": lambda: control}, store=tmp_path)
    assert (again.sampled, again.kept) == (17, 8 + 2)

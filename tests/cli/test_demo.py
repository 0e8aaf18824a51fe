"""The demo on a tiny model with a made-up truth: its wiring, not its figures."""

import dataclasses
import re

import numpy as np
import pytest

from memattn.cli.demo import demonstrate
from memattn.cli.demo_page import findings, meanings
from memattn.cli.demo_plan import Plan, choose_cases
from memattn.cli.truth import nearest_training_images
from memattn.detectors import DETECTORS, LayerEntropy
from memattn.errors import InputError, TestbedError
from memattn.evaluation.calibration import Calibration
from memattn.evaluation.cases import rows_of
from memattn.evaluation.random_weights import with_random_denoiser
from memattn.evaluation.roc import Auroc
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.study import run_study
from memattn.report import NearestImage, SampleCard
from memattn.testbed import Entry, Manifest, Recipe
from memattn.testbed.latents import reconstruct
from memattn.testbed.truth import CopyThresholds
from tests.pipelines import stable_diffusion

PLAN = Plan(
    steps=2,
    batch_size=4,
    false_positive_rate=0.25,
    calibration=3,
    ordinary=2,
    seen_once=1,
    shown={"verbatim": 1, "template": 2, "seen_once": 1, "ordinary": 1},
    detectors=(*DETECTORS, LayerEntropy(layer=2)),
)


ORDINARY = ("red fox,", "lazy dog", "blue house", "red sea")


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    return stable_diffusion(tmp_path_factory.mktemp("tokenizer"), sample_size=32)


@pytest.fixture
def manifest():
    region = np.zeros((64, 64), bool)
    region[8:40, 8:40] = True
    whole = np.ones((64, 64), bool)
    entries = [
        Entry("a red fox", "verbatim", "reporting", picture(0), whole, 4, 1000),
        Entry("a <b>dog</b>", "template", "reporting", picture(1), region, 3, 800),
        Entry("a house by the sea", "template", "reporting", picture(2), region, 1, 800),
        Entry("the fox by the sea", "seen_once", "reporting", picture(3), None, 0, 1),
        Entry("a fox by the sea", "seen_once", "reporting", picture(4), None, 0, 1),
        *(Entry(f"a {text}", "ordinary", "calibration") for text in ORDINARY),
        *(Entry(f"the {text}", "ordinary", "reporting") for text in ORDINARY),
    ]
    return Manifest(tuple(entries), Recipe(), {}, CopyThresholds(whole=0.1, inside=0.05))


def prompts(cases, role):
    return [cases[row].prompt for row in rows_of(cases, role)]


def test_only_verified_copies_count_as_memorized(manifest):
    cases = choose_cases(manifest, PLAN)
    assert prompts(cases, "memorized") == ["a red fox", "a <b>dog</b>"]
    assert prompts(cases, "other") == ["a house by the sea", "the fox by the sea"]


def test_calibration_and_ordinary_prompts_are_as_many_as_planned(manifest):
    cases = choose_cases(manifest, PLAN)
    assert prompts(cases, "calibration") == ["a red fox,", "a lazy dog", "a blue house"]
    assert prompts(cases, "ordinary") == ["the red fox,", "the lazy dog"]


def test_ordinary_prompts_that_gave_a_copy_are_left_out(manifest):
    manifest = dataclasses.replace(manifest, false_copies={"a lazy dog": 1, "the red fox,": 2})
    cases = choose_cases(manifest, PLAN)
    assert prompts(cases, "calibration")[1] == "a blue house"
    assert prompts(cases, "ordinary") == ["the lazy dog", "the blue house"]


def test_a_manifest_without_copies_or_prompts_is_refused(manifest):
    with pytest.raises(TestbedError, match="no verified copy"):
        choose_cases(manifest.with_copies({"a red fox": 0, "a <b>dog</b>": 0}), PLAN)
    with pytest.raises(TestbedError, match="4 ordinary prompts for the calibration part, expected"):
        choose_cases(manifest, Plan())


def test_nearest_is_judged_inside_a_templates_region_only(pipe, manifest):
    inside = manifest.shown[1].true_mask
    returned = reconstruct(pipe.vae, np.stack([picture(0), picture(1)]))
    template = returned[1].copy()
    template[~inside] = 0  # outside the region anything goes
    verbatim, found = nearest_training_images(
        pipe, ["a red fox", "the sea"], [returned[0], template], manifest
    )
    assert np.array_equal(verbatim.image, picture(0))
    assert (verbatim.distance, verbatim.copy_threshold) == (pytest.approx(0, abs=1e-9), 0.1)
    assert np.array_equal(found.image, picture(1))
    assert (found.distance, found.copy_threshold) == (pytest.approx(0, abs=1e-9), 0.05)
    assert found.is_copy
    assert (verbatim.name, found.name) == ("this prompt's own", "template: a <b>dog</b>")


OWN = "this prompt's own"


@pytest.fixture(scope="module")
def control(pipe):
    return with_random_denoiser(pipe)


@pytest.fixture
def study(pipe, control, manifest):
    return run_study(
        pipe,
        {"random weights": lambda: control},
        PLAN.detectors,
        choose_cases(manifest, PLAN),
        RunSettings(steps=2),
        false_positive_rate=0.25,
        batch_size=4,
    )


def card(prompt, nearest):
    return SampleCard(prompt, "", 0, picture(0), (), (), nearest=nearest)


def test_the_demo_prints_tables_and_writes_a_report(pipe, control, manifest, tmp_path, capsys):
    out = tmp_path / "demo"
    demonstrate(pipe, control, manifest, PLAN, out)
    printed, err = capsys.readouterr()
    lines = [line for line in printed.splitlines() if str(out) not in line]
    assert max(map(len, lines)) <= 100
    for detector in PLAN.detectors:
        assert f"{detector.name} " in printed
    for prompt, truth in (("a red fox", "4 of 4"), ("a <b>dog</b>", "3 of 4"), ("the red", "-")):
        row = next(line for line in lines if line.startswith(prompt))
        assert re.match(rf"{prompt}.*?\s{truth}\s.*(memorized|not flagged)$", row)
    assert "model: 100%" in err
    assert "control random weights: 100%" in err
    assert "Verdicts: " in printed
    assert "Attention to the begin token at the first call" in printed
    assert "2 are verified copies" in " ".join(printed.split())
    text = (out / "index.html").read_text()
    assert "&lt;b&gt;dog" in text
    assert text.count('<article class="sample">') == 5
    assert "True mask" in text
    assert "copied by 3 of 4 seeds" in text
    assert "nearest of the 5 training pictures kept" in text
    assert "shown 1000 to 1000 times in training" in text
    assert Calibration.load(out / "calibration.json").samples["NoiseMagnitude"] == 3


def test_sentences_on_showings_follow_the_manifest(manifest):
    counted = [dataclasses.replace(e, showings=700 + n) for n, e in enumerate(manifest.entries)]
    recipe = Recipe(template_variants=30)
    text = meanings(dataclasses.replace(manifest, entries=tuple(counted), recipe=recipe))
    assert "shown 700 to 700 times" in text["verbatim"]
    assert "shown 701 to 702 times in training over 30 different pictures" in text["template"]


def test_only_a_copy_of_the_prompts_own_picture_counts_as_its_copy(study):
    own = NearestImage(picture(0), 0.01, 0.1, OWN)
    another = NearestImage(picture(1), 0.01, 0.1, "template: a <b>dog</b>")
    cards = [card("a red fox", own), card("a <b>dog</b>", another), card("a house by the sea", own)]
    assert "1 of these 2 gave a copy of their own picture" in " ".join(findings(study, cards))


def test_chance_and_the_wrong_way_round_are_told_apart(study):
    chance, wrong, good = Auroc(0.6, 0.4, 0.8, 2, 2), Auroc(0.2, 0.1, 0.3, 2, 2), None
    results = [
        dataclasses.replace(result, auroc={"all": area or Auroc(0.9, 0.8, 1.0, 2, 2)})
        for result, area in zip(study.detectors[:3], (chance, wrong, good), strict=True)
    ]
    text = findings(dataclasses.replace(study, detectors=tuple(results)), [])
    names = [result.detector.name for result in results]
    assert f"No better than chance on this model, by its interval: {names[0]}." in text
    assert f"Ranks the wrong way round on this model, by its interval: {names[1]}." in text


def test_a_target_with_other_files_is_kept(pipe, control, manifest, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="it holds other files"):
        demonstrate(pipe, control, manifest, PLAN, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

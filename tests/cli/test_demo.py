"""The demo on a tiny model with a made-up truth: its wiring, not its figures."""

import numpy as np
import pytest

from memattn.cli.demo import demonstrate
from memattn.cli.demo_plan import Plan, choose_parts
from memattn.cli.truth import nearest_training_images
from memattn.errors import InputError, TestbedError
from memattn.evaluation.calibration import Calibration
from memattn.testbed import Entry, Manifest, Recipe
from memattn.testbed.latents import reconstruct
from memattn.testbed.truth import CopyThresholds
from tests.pipelines import stable_diffusion

PLAN = Plan(
    steps=2,
    batch_size=4,
    false_positive_rate=0.25,
    first_call_calibration=4,
    whole_run_calibration=3,
    first_call_ordinary=4,
    whole_run_ordinary=2,
    shown={"verbatim": 1, "template": 2, "seen_once": 1, "ordinary": 1},
)


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
    words = ["red fox", "lazy dog", "blue house", "red sea"]
    entries = [
        Entry("a red fox", "verbatim", "reporting", picture(0), whole, 4),
        Entry("a <b>dog</b>", "template", "reporting", picture(1), region, 3),
        Entry("a house by the sea", "template", "reporting", picture(2), region, 1),
        Entry("the fox by the sea", "seen_once", "reporting", picture(3), None, 0),
        *(Entry(f"a {text}", "ordinary", "calibration") for text in words),
        *(Entry(f"the {text}", "ordinary", "reporting") for text in words),
    ]
    return Manifest(tuple(entries), Recipe(), CopyThresholds(whole=0.1, inside=0.05), {})


def test_only_verified_copies_count_as_memorized(manifest):
    parts = choose_parts(manifest, PLAN)
    assert [case.prompt for case in parts.first_call.memorized] == ["a red fox", "a <b>dog</b>"]
    assert [case.prompt for case in parts.whole_run.others] == [
        "a house by the sea",
        "the fox by the sea",
    ]
    assert len(parts.first_call.calibration) == 4
    assert len(parts.whole_run.calibration) == 3
    assert [case.prompt for case in parts.whole_run.reported] == [
        entry.prompt for entry in parts.reported
    ]


def test_calibration_and_reporting_share_no_prompt(manifest):
    parts = choose_parts(manifest, PLAN)
    for cases in (parts.first_call, parts.whole_run):
        assert not set(cases.calibration) & set(cases.reported)


def test_a_manifest_without_copies_or_prompts_is_refused(manifest):
    with pytest.raises(TestbedError, match="no verified copy"):
        choose_parts(manifest.with_copies({"a red fox": 0, "a <b>dog</b>": 0}), PLAN)
    with pytest.raises(TestbedError, match="4 ordinary prompts of one split, expected 500"):
        choose_parts(manifest, Plan())


def test_nearest_is_judged_inside_a_templates_region_only(pipe, manifest):
    inside = manifest.shown[1].true_mask
    returned = reconstruct(pipe.vae, np.stack([picture(0), picture(1)]))
    template = returned[1].copy()
    template[~inside] = 0  # outside the region anything goes
    verbatim, found = nearest_training_images(
        pipe, ["a red fox", "the sea"], [returned[0], template], manifest
    )
    assert np.array_equal(verbatim.image, picture(0))
    assert (verbatim.distance, verbatim.copy_threshold) == (0.0, 0.1)
    assert np.array_equal(found.image, picture(1))
    assert (found.distance, found.copy_threshold) == (0.0, 0.05)
    assert found.is_copy
    assert (verbatim.name, found.name) == ("this prompt's own", "template: a <b>dog</b>")


def test_the_demo_prints_tables_and_writes_a_report(pipe, manifest, tmp_path, capsys):
    out = tmp_path / "demo"
    demonstrate(pipe, pipe, manifest, PLAN, out)
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if str(out) not in line]
    assert max(map(len, lines)) <= 100
    for name in ("AttentionEntropy", "BrightEnding", "LayerEntropy", "NoiseMagnitude"):
        assert name in printed
    assert "Verdicts: " in printed
    assert "2 are verified copies" in " ".join(printed.split())
    text = (out / "index.html").read_text()
    assert "&lt;b&gt;dog" in text
    assert text.count('<article class="sample">') == 5
    assert "True mask" in text
    assert Calibration.load(out / "calibration.json").samples["NoiseMagnitude"] == 4


def test_a_target_with_other_files_is_kept(pipe, manifest, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="it holds other files"):
        demonstrate(pipe, pipe, manifest, PLAN, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

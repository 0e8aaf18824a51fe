import numpy as np
import pytest

from memattn.errors import TestbedError
from memattn.testbed import Entry, Manifest, Recipe, load_manifest
from memattn.testbed.truth import CopyThresholds


@pytest.fixture
def manifest():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (30, 64, 64, 3), np.uint8)
    half = np.zeros((64, 64), bool)
    half[:, :30] = True
    return Manifest(
        entries=(
            *(
                Entry(f"fixed {i}", "template", "reporting", pictures[i], half, 2)
                for i in range(28)
            ),
            Entry("whole", "verbatim", "reporting", pictures[28], ~half | half, 4),
            Entry("once", "seen_once", "reporting", pictures[29], None, 0),
            Entry("calm", "ordinary", "calibration"),
            Entry("plain ünïcode", "ordinary", "reporting"),
        ),
        recipe=Recipe(seed=3),
        made_by={"command": "memattn testbed train"},
        thresholds=CopyThresholds(0.2, 0.15),
        rigid=("fixed 3",),
        false_copies={"plain ünïcode": 1},
    )


def test_manifest_survives_the_disk(manifest, tmp_path):
    manifest.save(tmp_path)
    loaded = load_manifest(tmp_path)
    assert loaded == manifest
    for before, after in zip(manifest.entries, loaded.entries, strict=True):
        assert np.array_equal(before.training_image, after.training_image)
        assert np.array_equal(before.true_mask, after.true_mask)


def test_select_keeps_order_and_split(manifest):
    assert [e.prompt for e in manifest.select("ordinary")] == ["calm", "plain ünïcode"]
    assert [e.prompt for e in manifest.select("ordinary", split="reporting")] == ["plain ünïcode"]
    assert len(manifest.select("template", "verbatim")) == 29


def test_memorized_means_three_of_four_seeds(manifest):
    assert [e.is_memorized for e in manifest.select("template", "verbatim")] == [False] * 28 + [
        True
    ]
    changed = manifest.with_copies({"fixed 0": 3, "whole": 2})
    assert [e.prompt for e in changed.entries if e.is_memorized] == ["fixed 0"]


def test_broken_manifest_is_refused_in_a_sentence(manifest, tmp_path):
    with pytest.raises(TestbedError, match=r"holds no testbed: there is no manifest\.json"):
        load_manifest(tmp_path)
    manifest.save(tmp_path)
    (tmp_path / "manifest.json").write_text('{"files": {}}', encoding="utf-8")
    with pytest.raises(TestbedError, match="holds a damaged testbed"):
        load_manifest(tmp_path)


@pytest.mark.parametrize("sheet", ["pictures.png", "masks.png"])
def test_other_pictures_than_the_manifests_are_refused(sheet, manifest, tmp_path):
    manifest.save(tmp_path)
    other = "masks.png" if sheet == "pictures.png" else "pictures.png"
    (tmp_path / sheet).write_bytes((tmp_path / other).read_bytes())
    with pytest.raises(TestbedError, match=f"{sheet} does not have the manifest's SHA-256"):
        load_manifest(tmp_path)


def test_packaged_manifest_keeps_its_promises():
    manifest = load_manifest()
    counts = manifest.recipe.group_counts
    assert {g: len(manifest.select(g)) for g in counts} == counts
    assert len(manifest.select("ordinary", split="calibration")) == manifest.recipe.ordinary // 2
    assert len({entry.prompt for entry in manifest.entries}) == len(manifest.entries)
    assert not any(entry.is_memorized for entry in manifest.select("seen_once", "ordinary"))
    assert any(entry.is_memorized for entry in manifest.select("verbatim"))
    assert any(entry.is_memorized for entry in manifest.select("template"))

import numpy as np
import pytest
from numpy.random import default_rng

from memattn.testbed import Entry, Manifest, Recipe, load_manifest, load_pipeline, verification
from memattn.testbed.truth import CopyThresholds
from memattn.testbed.verification import verify

rng = default_rng(0)
HALF = np.zeros((64, 64), bool)
HALF[:32] = True
PICTURES = rng.integers(60, 190, (3, 64, 64, 3), np.uint8)
ENTRIES = (
    Entry("whole", "verbatim", "reporting", PICTURES[0], ~HALF | HALF, 0),
    Entry("half", "template", "reporting", PICTURES[1], HALF, 0),
    Entry("once", "seen_once", "reporting", PICTURES[2], None, 0),
    Entry("calm", "ordinary", "reporting"),
    Entry("loud", "ordinary", "reporting"),
)


@pytest.fixture
def manifest():
    return Manifest(ENTRIES, Recipe(), {}, CopyThresholds(whole=0.4, inside=0.2))


def test_verify_counts_copies_of_the_prompts_own_picture(manifest, monkeypatch):
    """Sampling is replaced by pictures whose truth is known; everything after it is real."""
    outside = rng.integers(0, 256, (4, 64, 64, 3), np.uint8)

    def sampled(pipeline, prompts, seed, progress):
        if len(prompts) == 2:  # the ordinary ones, of which the second copies
            return np.stack([np.zeros_like(PICTURES[0]), PICTURES[2]])
        half = np.where(HALF[..., None], PICTURES[1], outside[seed])
        once = PICTURES[2] if seed == 0 else PICTURES[0]
        return np.stack([PICTURES[0], half, once])

    monkeypatch.setattr(verification, "sample_pictures", sampled)
    monkeypatch.setattr(verification, "reconstruct", lambda vae, pictures: pictures)
    found = verify(load_pipeline(), manifest)
    assert found.copies == {"whole": 4, "half": 4, "once": 1}
    assert found.false_copies == ("loud",)
    assert found.rigid == ()
    assert found.summary(manifest) == [
        ("verbatim", 1, 1),
        ("template", 1, 1),
        ("seen_once", 0, 1),
        ("ordinary", 1, 2),
    ]
    filled = found.fill(manifest)
    assert [entry.is_memorized for entry in filled.shown] == [True, True, False]
    assert filled.false_copies == ("loud",)


def test_template_whose_outside_never_varies_is_rigid(manifest, monkeypatch):
    monkeypatch.setattr(
        verification,
        "sample_pictures",
        lambda pipeline, prompts, seed, progress: PICTURES[: len(prompts)],
    )
    monkeypatch.setattr(verification, "reconstruct", lambda vae, pictures: pictures)
    assert verify(load_pipeline(), manifest).rigid == ("half",)


@pytest.mark.proof
def test_packaged_truth_holds():
    manifest = load_manifest()
    found = verify(load_pipeline(), manifest).fill(manifest)
    for entry, claimed in zip(found.shown, manifest.shown, strict=True):
        assert entry.is_memorized == claimed.is_memorized
    assert set(found.false_copies) <= set(manifest.false_copies)
    assert set(found.rigid) <= set(manifest.rigid)

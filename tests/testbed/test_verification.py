from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from memattn.testbed import Entry, load_manifest, load_pipeline, verification
from memattn.testbed.verification import Verification, verify
from tests.testbed.small_manifest import HALF, MANIFEST, PICTURES, WHOLE


def test_verify_counts_copies_of_the_prompts_own_picture(monkeypatch):
    """Sampling is replaced by pictures whose truth is known; everything after it is real."""
    outside = default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)

    def sampled(pipeline, prompts, seed, progress):
        if prompts == ["calm", "loud"]:  # the ordinary ones, of which the second copies
            assert seed == 0
            return np.stack([np.zeros_like(PICTURES[0]), PICTURES[2]])
        if prompts == ["loud"]:  # asked again, as nobody else is
            return np.stack([PICTURES[2] if seed == 3 else np.zeros_like(PICTURES[0])])
        half = np.where(HALF[..., None], PICTURES[1], outside[seed])
        once = PICTURES[2] if seed == 0 else PICTURES[0]
        return np.stack([PICTURES[0], half, once])

    monkeypatch.setattr(verification, "sample_pictures", sampled)
    monkeypatch.setattr(verification, "reconstruct", lambda vae, pictures: pictures)
    found = verify(load_pipeline(), MANIFEST)
    assert found.copies == {"whole": 4, "half": 4, "once": 1}
    assert found.false_copies == {"loud": 2}
    assert found.rigid == ()
    assert found.summary(MANIFEST) == [
        ("verbatim", 1, 1),
        ("template", 1, 1),
        ("seen_once", 0, 1),
        ("ordinary", 0, 2),
    ]
    filled = found.fill(MANIFEST)
    assert [entry.is_memorized for entry in filled.shown] == [True, True, False]
    assert filled.false_copies == {"loud": 2}


def test_template_whose_outside_never_varies_is_rigid(monkeypatch):
    monkeypatch.setattr(
        verification,
        "sample_pictures",
        lambda pipeline, prompts, seed, progress: PICTURES[: len(prompts)],
    )
    monkeypatch.setattr(verification, "reconstruct", lambda vae, pictures: pictures)
    assert verify(load_pipeline(), MANIFEST).rigid == ("half",)


LADDER = tuple(
    Entry(f"rung {showings} {n}", "ladder", "reporting", PICTURES[0], WHOLE, 0, showings)
    for showings in (1, 64, 1024)
    for n in range(2)
)


def found(**changed):
    """What a good testbed's verification finds, but for some prompts."""
    copies = {"whole": 4, "half": 3, "once": 0, "rung 1 0": 0, "rung 1 1": 0}
    copies |= {"rung 64 0": 0, "rung 64 1": 2, "rung 1024 0": 4, "rung 1024 1": 3}
    false_copies = changed.pop("false_copies", {"calm": 2})
    return Verification(copies | changed, (), false_copies, ordinary=2)


def test_the_bar_is_met_by_a_good_testbed_and_says_what_was_missed():
    climbing = replace(MANIFEST, entries=(*MANIFEST.entries, *LADDER))
    assert found().summary(climbing)[2:5] == [
        ("ladder, shown 1 times", 0, 2),
        ("ladder, shown 64 times", 0, 2),
        ("ladder, shown 1024 times", 2, 2),
    ]
    assert all(met for _, met in found().bar(climbing))
    for missed, spoiled in (
        ("verbatim: 0 of 1, at least 90 %", found(whole=2)),
        ("template: 0 of 1, at least 90 %", found(half=2)),
        ("seen once: 1 of 1, none", found(once=3)),
        ("ordinary: 1 of 2, none", found(false_copies={"calm": 3})),
        ("ladder: 3 2 7 copying seeds by rung, rising", found(**{"rung 1 0": 3})),
    ):
        assert [line for line, met in spoiled.bar(climbing) if not met] == [missed]


def test_a_control_meets_its_bar_if_it_copies_nothing():
    once = replace(
        MANIFEST,
        entries=tuple(
            entry if entry.group == "ordinary" else replace(entry, showings=1)
            for entry in MANIFEST.entries
        ),
    )
    assert found(whole=2, half=0).bar(once) == [
        ("verbatim: 0 of 1, none", True),
        ("template: 0 of 1, none", True),
        ("seen once: 0 of 1, none", True),
        ("ordinary: 0 of 2, none", True),
    ]
    spoiled = found(whole=0, half=3, false_copies={"calm": 3}).bar(once)
    assert [met for _, met in spoiled] == [True, False, True, False]


def test_the_packaged_manifest_says_that_the_bar_is_met():
    manifest = load_manifest()
    claimed = Verification(
        {entry.prompt: entry.copies or 0 for entry in manifest.shown},
        manifest.rigid,
        manifest.false_copies,
        ordinary=len(manifest.select("ordinary")),
    )
    assert [line for line, met in claimed.bar(manifest) if not met] == []


@pytest.mark.proof
def test_packaged_truth_holds():
    manifest = load_manifest()
    verification = verify(load_pipeline(), manifest)
    assert all(met for _, met in verification.bar(manifest))
    verified = verification.fill(manifest)
    for entry, claimed in zip(verified.shown, manifest.shown, strict=True):
        assert entry.is_memorized == claimed.is_memorized
    assert set(verified.false_copies) <= set(manifest.false_copies)
    assert set(verified.rigid) <= set(manifest.rigid)

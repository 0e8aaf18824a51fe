"""Which part each prompt of a testbed plays, and which files an evaluation may replace."""

import numpy as np
import pytest

from memattn.cli.demo_plan import Plan, choose_cases
from memattn.cli.evaluation_cases import testbed_cases as cases_of
from memattn.cli.evaluation_folder import check_evaluation_folder
from memattn.errors import InputError
from memattn.evaluation.cases import localisable, rows_of
from memattn.testbed import Entry, Manifest, Recipe
from memattn.testbed.truth import CopyThresholds
from memattn.testbed.verification import SEEDS

PICTURE = np.zeros((64, 64, 3), np.uint8)
WHOLE = np.ones((64, 64), bool)
REGION = np.tri(64, dtype=bool)
ENTRIES = (
    Entry("copied", "verbatim", "reporting", PICTURE, WHOLE, 4, 1100),
    Entry("missed", "verbatim", "reporting", PICTURE, WHOLE, 2, 1100),
    Entry("pliant", "template", "reporting", PICTURE, REGION, 4, 900),
    Entry("stiff", "template", "reporting", PICTURE, REGION, 4, 900),
    Entry("low rung", "ladder", "reporting", PICTURE, WHOLE, 0, 4),
    Entry("high rung", "ladder", "reporting", PICTURE, WHOLE, 3, 1024),
    Entry("lucky", "seen_once", "reporting", PICTURE, None, 4, 1),
    Entry("sets", "ordinary", "calibration"),
    Entry("leaks", "ordinary", "calibration"),
    Entry("counts", "ordinary", "reporting"),
)


@pytest.fixture
def manifest():
    return Manifest(
        ENTRIES,
        Recipe(),
        {},
        CopyThresholds(whole=0.4, inside=0.3),
        rigid=("stiff",),
        false_copies={"leaks": 1},
    )


def test_verified_copies_are_memorized_whatever_group_they_are_shown_in(manifest):
    cases = cases_of(manifest, first_seed=0)
    roles = {case.prompt: case.role for case in cases}
    assert [prompt for prompt, role in roles.items() if role == "memorized"] == [
        "copied",
        "pliant",
        "stiff",
        "high rung",
    ]
    assert [prompt for prompt, role in roles.items() if role == "other"] == [
        "missed",
        "low rung",
        "lucky",
    ]
    assert (roles["sets"], roles["counts"]) == ("calibration", "ordinary")
    assert "leaks" not in roles
    assert {case.prompt: case.showings for case in cases}["high rung"] == 1024


def test_no_image_that_decided_the_truth_is_scored(manifest):
    cases = cases_of(manifest, first_seed=10)
    assert not {case.seed for case in cases} & set(range(10, 10 + len(SEEDS)))
    assert len({case.seed for case in cases}) == len(cases)


def test_a_rigid_template_has_no_true_mask(manifest):
    cases = cases_of(manifest, first_seed=0)
    assert [cases[row].prompt for row in localisable(cases)] == ["pliant"]
    assert [case.prompt for case in cases if case.true_mask is not None] == [
        "copied",
        "pliant",
        "high rung",
        "missed",
        "low rung",
    ]


def test_the_demo_leaves_the_ladder_out(manifest):
    cases = choose_cases(manifest, Plan(calibration=1, ordinary=1, seen_once=1))
    assert {case.group for case in cases} == {"verbatim", "template", "seen_once", "ordinary"}
    assert len(rows_of(cases, "memorized")) == 3


def test_an_evaluation_replaces_unfinished_batches_and_nothing_else(tmp_path):
    batches = tmp_path / "unfinished" / "model"
    batches.mkdir(parents=True)
    (batches / "batch-0003.safetensors").write_bytes(b"")
    (batches / ".batch-0004.safetensors.abc").write_bytes(b"")  # of a run that was killed
    check_evaluation_folder(tmp_path)
    (batches / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty folder or an earlier evaluation"):
        check_evaluation_folder(tmp_path)

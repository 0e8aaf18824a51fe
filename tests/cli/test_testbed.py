import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from memattn import testbed
from memattn.cli.main import main
from memattn.testbed import verification
from memattn.testbed.manifest import DATA
from tests.testbed.small_manifest import MANIFEST
from tests.testbed.test_verification import LADDER, found


@pytest.mark.parametrize("action", [["verify"], ["samples", "--out", "sheet.png"]])
def test_missing_testbed_is_one_sentence(action, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["testbed", *action, "--data", str(tmp_path / "nothing")]) == 2
    error = capsys.readouterr().err
    assert "holds no testbed: there is no manifest.json" in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_one_sentence(tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    next((data / "model" / "vae").glob("*.safetensors")).write_bytes(b"")
    assert main(["testbed", "verify", "--data", str(data)]) == 2
    assert "does not have the manifest's SHA-256" in capsys.readouterr().err


def test_training_of_another_recipe_is_refused(tmp_path, capsys):
    (tmp_path / "recipe.json").write_text('{"seed": 0}', encoding="utf-8")
    assert main(["testbed", "train", "--out", str(tmp_path), "--permutation", "1"]) == 2
    assert "holds a training with permutation = None, expected 1" in capsys.readouterr().err


@pytest.fixture
def verify(monkeypatch, capsys):
    """`testbed verify` where it is known what the manifest claims and what sampling finds."""

    def run(claimed, sampled):
        manifest = replace(MANIFEST, entries=(*MANIFEST.entries, *LADDER))
        manifest = claimed.fill(manifest)
        monkeypatch.setattr(testbed, "load_manifest", lambda data: manifest)
        monkeypatch.setattr(testbed, "load_pipeline", lambda data: torch.nn.Identity())
        monkeypatch.setattr(verification, "verify", lambda pipeline, manifest: sampled)
        return main(["testbed", "verify"]), *capsys.readouterr()

    return run


def test_a_good_testbed_passes(verify):
    code, out, err = verify(found(), found())
    assert (code, err) == (0, "")
    assert "verbatim: 1 of 1, at least 90 %: met" in out


def test_a_missed_bar_fails_after_everything_was_printed(verify):
    spoiled = found(whole=1, once=4)
    code, out, err = verify(spoiled, spoiled)
    assert "verbatim: 0 of 1, at least 90 %: missed\ntemplate: 1 of 1, at least 90 %: met" in out
    assert code == 2
    assert err == (
        "memattn testbed: got 2 of 5 lines of the bar missed (verbatim: 0 of 1, at least 90 %; "
        "seen once: 1 of 1, none), expected all of them met.\n"
    )


def test_a_prompt_that_differs_from_the_manifest_is_named_before_the_bar(verify):
    code, out, err = verify(found(), found(whole=1))
    assert "verbatim: 0 of 1, at least 90 %: missed" in out
    assert code == 2
    assert err == (
        "memattn testbed: 1 of 9 prompts differ from the manifest, first: 'whole' is not a "
        "verified copy here\n"
    )


@pytest.mark.parametrize("permutation", ["-3", "half"])
def test_a_permutation_that_is_no_seed_is_refused_before_anything_is_written(
    tmp_path, capsys, permutation
):
    out = tmp_path / "training"
    with pytest.raises(SystemExit) as stop:
        main(["testbed", "train", "--out", str(out), "--permutation", permutation])
    assert stop.value.code == 2
    sentence = f"argument --permutation: got {permutation}, expected a whole number from 0 up"
    assert capsys.readouterr().err.splitlines()[-1].endswith(sentence)
    assert not out.exists()


@pytest.mark.parametrize(
    "command",
    [
        "testbed verify --data nothing",
        "testbed samples --data nothing --out sheet.png",
        "testbed train --out FILE/out",
        "detect --model nothing --prompt disc",
    ],
)
def test_libraries_are_imported_without_a_word(tmp_path, command):
    """In a process of its own, where they are imported for the first time."""
    (tmp_path / "FILE").touch()
    program = f"import sys; from memattn.cli.main import main; sys.exit(main({command.split()}))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("memattn ")

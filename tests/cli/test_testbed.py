import shutil

import pytest

from memattn.cli.main import main
from memattn.testbed.manifest import DATA


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

import pytest

from memattn.cli.main import main
from memattn.evaluation.calibration import Calibration


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "ordinary.txt"
    path.write_text("a red fox\nthe lazy dog\na blue house\n")
    return path


def calibrate(checkpoint, prompts, out, rate="0.25"):
    options = ["calibrate", "--steps", "2", "--device", "cpu", "--false-positive-rate", rate]
    files = [f"--model={checkpoint}", f"--prompts={prompts}", f"--out={out}"]
    return main([*options, *files])


def test_a_calibration_names_settings_and_detectors(checkpoint, prompts, tmp_path):
    out = tmp_path / "calibration.json"
    assert calibrate(checkpoint, prompts, out) == 0
    found = Calibration.load(out)
    assert found.settings.steps == 2
    assert found.settings.height == 16
    assert found.samples == dict.fromkeys(found.thresholds, 3)
    assert set(found.thresholds) == {
        "AttentionEntropy",
        "BrightEnding",
        "LayerEntropy",
        "NoiseMagnitude",
    }


@pytest.mark.parametrize(("rate", "needed"), [("0.01", 99), ("0.2", 4)])
def test_too_few_prompts_are_refused_before_anything_is_generated(
    checkpoint, prompts, tmp_path, capsys, rate, needed
):
    assert calibrate(checkpoint, prompts, tmp_path / "calibration.json", rate) == 2
    assert f"got 3 ordinary prompts, expected at least {needed}" in capsys.readouterr().err
    assert not (tmp_path / "calibration.json").exists()


def test_a_target_in_a_missing_folder_is_refused(checkpoint, prompts, tmp_path, capsys):
    assert calibrate(checkpoint, prompts, tmp_path / "none" / "calibration.json") == 2
    assert "a folder that exists" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "1", "2"])
def test_a_rate_that_is_no_share_is_refused(checkpoint, prompts, tmp_path, rate):
    with pytest.raises(SystemExit):
        calibrate(checkpoint, prompts, tmp_path / "calibration.json", rate)

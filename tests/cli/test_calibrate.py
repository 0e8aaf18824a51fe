import math
import re

import pytest
from diffusers import AutoencoderKL

from memattn.cli.main import main
from memattn.evaluation import sampling
from memattn.evaluation.calibration import Calibration
from tests.cli.stopped import stop_in_the_third_batch


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "ordinary.txt"
    path.write_text("a red fox\nthe lazy dog\na blue house\n")
    return path


def calibrate(checkpoint, prompts, out, rate="0.25", *more):
    options = ["calibrate", "--steps", "2", "--device", "cpu", "--false-positive-rate", rate]
    files = [f"--model={checkpoint}", f"--prompts={prompts}", f"--out={out}"]
    return main([*options, *files, *more])


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


def test_the_table_shows_every_interval_and_below_it_the_rate_that_is_really_given(
    checkpoint, prompts, tmp_path, capsys
):
    prompts.write_text("".join(f"a red fox number {number}\n" for number in range(4)))
    out = tmp_path / "calibration.json"
    assert calibrate(checkpoint, prompts, out, rate="0.5") == 0
    found = Calibration.load(out)
    printed = capsys.readouterr().out
    rows = {line.split()[0]: line for line in printed.splitlines() if line}
    for name, threshold in found.thresholds.items():
        assert f"{threshold:.4g}" in rows[name]
        low, high = found.intervals[name]
        assert (low, high) == (-math.inf, math.inf)
        assert rows[name].endswith("any score")
    # Two of five places are flagged: Beta(2, 3) has its 2.5 % and 97.5 % quantiles here.
    assert "Set on 4 ordinary prompts for a false-positive rate of 0.5, each threshold" in printed
    assert "really flags between 0.068 and 0.81 of such prompts" in " ".join(printed.split())
    assert "From 6 prompts on, a threshold's interval has an upper end." in " ".join(
        printed.split()
    )
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    ("count", "rate", "shown"),
    [(3, "0.25", r" \S+ or more$"), (6, "0.5", r" \S+ to \S+$"), (6, "0.75", r" \S+ or less$")],
)
def test_an_interval_says_where_it_is_open(
    checkpoint, prompts, tmp_path, capsys, count, rate, shown
):
    prompts.write_text("".join(f"a red fox number {number}\n" for number in range(count)))
    out = tmp_path / "calibration.json"
    assert calibrate(checkpoint, prompts, out, rate) == 0
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith("NoiseMagnitude"))
    assert re.search(shown, row)
    for end in Calibration.load(out).intervals["NoiseMagnitude"]:
        assert math.isinf(end) or f"{end:.4g}" in row
    assert ("has an upper end" in " ".join(printed.split())) == (count < 6)


@pytest.mark.parametrize("again", ["a red fox", "A Red  Fox"])
def test_a_prompt_that_comes_twice_is_refused_before_anything_is_generated(
    checkpoint, prompts, tmp_path, capsys, monkeypatch, again
):
    monkeypatch.setattr(sampling, "record_run", None)
    prompts.write_text(f"the lazy dog\na red fox\na blue house\n{again}\nthe lazy dog\n")
    assert calibrate(checkpoint, prompts, tmp_path / "calibration.json") == 2
    err = capsys.readouterr().err
    assert f"got the prompt {again!r} twice in {prompts}" in err
    assert "expected every prompt once" in err
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize(("rate", "needed"), [("0.01", 99), ("0.2", 4)])
def test_too_few_prompts_are_refused_before_anything_is_generated(
    checkpoint, prompts, tmp_path, capsys, rate, needed
):
    assert calibrate(checkpoint, prompts, tmp_path / "calibration.json", rate) == 2
    assert f"got 3 ordinary prompts, expected at least {needed}" in capsys.readouterr().err
    assert not (tmp_path / "calibration.json").exists()


def test_a_target_in_a_missing_folder_makes_the_folder(checkpoint, prompts, tmp_path):
    out = tmp_path / "none" / "calibration.json"
    assert calibrate(checkpoint, prompts, out) == 0
    assert out.is_file()


@pytest.mark.parametrize("out", [".", "ordinary.txt/calibration.json"])
def test_a_target_that_cannot_be_a_file_is_refused_at_once(
    checkpoint, prompts, tmp_path, capsys, monkeypatch, out
):
    monkeypatch.setattr(sampling, "record_run", None)
    assert calibrate(checkpoint, prompts, tmp_path / out) == 2
    assert capsys.readouterr().err.startswith("memattn calibrate: ")
    assert [path.name for path in tmp_path.iterdir()] == ["ordinary.txt"]


def test_calibrating_decodes_no_image(checkpoint, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(AutoencoderKL, "decode", None)
    assert calibrate(checkpoint, prompts, tmp_path / "calibration.json") == 0


def test_a_detector_that_cannot_read_the_model_is_left_out(
    shallow_checkpoint, prompts, tmp_path, capsys
):
    out = tmp_path / "calibration.json"
    assert calibrate(shallow_checkpoint, prompts, out) == 0
    assert "LayerEntropy" not in Calibration.load(out).thresholds
    assert "NoiseMagnitude" in Calibration.load(out).thresholds
    err = capsys.readouterr().err
    assert err.count("LayerEntropy cannot read this model: got layer 3") == 1


@pytest.mark.parametrize("rate", ["0", "1", "2"])
def test_a_rate_that_is_no_share_is_refused(checkpoint, prompts, tmp_path, rate):
    with pytest.raises(SystemExit):
        calibrate(checkpoint, prompts, tmp_path / "calibration.json", rate)


def test_a_stopped_run_goes_on_to_the_same_calibration(
    checkpoint, prompts, tmp_path, monkeypatch, capsys
):
    whole, stopped = tmp_path / "whole.json", tmp_path / "deep" / "stopped.json"
    assert calibrate(checkpoint, prompts, whole, "0.25", "--batch-size=1") == 0
    capsys.readouterr()
    made = stop_in_the_third_batch(monkeypatch)
    assert calibrate(checkpoint, prompts, stopped, "0.25", "--batch-size=1") == 130
    assert "the same command goes on after the last finished batch" in capsys.readouterr().err
    unfinished = tmp_path / "deep" / "stopped.json.unfinished"
    assert list(stopped.parent.iterdir()) == [unfinished]
    assert calibrate(checkpoint, prompts, stopped, "0.25", "--batch-size=2") == 2
    assert f"got unfinished work in {unfinished} of other batch size" in capsys.readouterr().err
    assert calibrate(checkpoint, prompts, stopped, "0.25", "--batch-size=1") == 0
    assert "2 of 3 were there already" in capsys.readouterr().err
    assert len(made) == 4
    assert stopped.read_bytes() == whole.read_bytes()
    assert list(stopped.parent.iterdir()) == [stopped]


@pytest.mark.parametrize("taken", ["folder", "file", "link"])
def test_other_files_where_batches_are_to_be_kept_are_not_removed(
    checkpoint, prompts, tmp_path, capsys, monkeypatch, taken
):
    monkeypatch.setattr(sampling, "record_run", None)
    path = tmp_path / "calibration.json.unfinished"
    if taken == "folder":
        path.mkdir()
        path /= "batch-1.safetensors-notes.txt"
    if taken == "link":
        path.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere").mkdir()
    else:
        path.touch()
    assert calibrate(checkpoint, prompts, tmp_path / "calibration.json") == 2
    err = capsys.readouterr().err
    assert f"got {tmp_path / 'calibration.json.unfinished'}, which holds other files" in err
    assert path.exists()


def test_how_often_any_detector_flags_is_said(checkpoint, prompts, tmp_path, capsys):
    out = tmp_path / "calibration.json"
    assert calibrate(checkpoint, prompts, out) == 0
    calibration = Calibration.load(out)
    printed = " ".join(capsys.readouterr().out.split())
    assert 1 <= calibration.joint.flagged <= calibration.joint.prompts == 3
    assert f" {calibration.joint_sentence} wrote " in printed

import json
import shutil

import pytest

from memattn.cli.main import main
from memattn.evaluation import sampling
from memattn.evaluation.calibration import Calibration

ATTACK = "a red fox <script>alert(1)</script>"


def detect(checkpoint, *arguments):
    return main(
        ["detect", "--model", str(checkpoint), "--steps", "2", "--device", "cpu", *arguments]
    )


@pytest.fixture
def calibration(checkpoint, tmp_path, capsys):
    prompts = tmp_path / "ordinary.txt"
    prompts.write_text("a red fox\nthe lazy dog\na blue house\n")
    path = tmp_path / "calibration.json"
    options = ["calibrate", "--steps=2", "--device=cpu", "--false-positive-rate=0.25"]
    files = [f"--model={checkpoint}", f"--prompts={prompts}", f"--out={path}"]
    assert main([*options, *files]) == 0
    assert "wrote" in capsys.readouterr().out
    return path


def one_sentence(capsys, command="detect"):
    """The last line of stderr: the answer to a mistake."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    line = captured.err.strip().splitlines()[-1]
    assert line.startswith(f"memattn {command}: ")
    return line


def test_without_a_calibration_scores_are_printed_and_the_verdict_is_refused(checkpoint, capsys):
    assert detect(checkpoint, "--prompt", "a red fox", "--images-per-prompt", "2") == 0
    out = capsys.readouterr().out
    assert out.count("a red fox") == 2
    assert "No verdict" in out
    assert "memattn calibrate" in out
    assert "memorized*" not in out
    assert max(map(len, out.splitlines())) <= 100


def test_with_a_calibration_every_prompt_gets_a_verdict(checkpoint, calibration, tmp_path, capsys):
    content = json.loads(calibration.read_text())
    content["thresholds"]["NoiseMagnitude"] = -1.0  # whatever the prompt, this one flags
    calibration.write_text(json.dumps(content))
    assert detect(checkpoint, "--prompt", "a red fox", "--calibration", str(calibration)) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "a red fox" in line)
    assert row.split()[-1] == "memorized"
    assert "*" in row


def test_a_report_is_written_and_escaped(checkpoint, tmp_path, capsys):
    out = tmp_path / "report"
    assert detect(checkpoint, "--prompt", ATTACK, "--prompt", "a dog", "--out", str(out)) == 0
    text = (out / "index.html").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert len(list((out / "images").iterdir())) == 2
    assert str(out / "index.html") in capsys.readouterr().out


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_run_leaves_no_report(checkpoint, tmp_path, monkeypatch, error, capsys):
    import memattn.report.write as module

    def interrupted(image):
        raise error

    monkeypatch.setattr(module, "png_bytes", interrupted)
    arguments = ["--prompt", "a dog", "--out", str(tmp_path / "report")]
    if error is KeyboardInterrupt:
        assert detect(checkpoint, *arguments) == 130
        assert "interrupted" in capsys.readouterr().err
    else:
        with pytest.raises(error):
            detect(checkpoint, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_for_other_settings_is_refused(checkpoint, calibration, capsys):
    arguments = ["--prompt", "a dog", "--calibration", str(calibration), "--guidance", "5"]
    assert detect(checkpoint, *arguments) == 2
    assert "other settings: got guidance_scale=5.0, expected guidance_scale=7.5" in one_sentence(
        capsys
    )


def test_a_calibration_for_another_model_is_refused(checkpoint, calibration, capsys):
    content = json.loads(calibration.read_text())
    calibration.write_text(json.dumps({**content, "model_hash": "0" * 64}))
    assert detect(checkpoint, "--prompt", "a dog", "--calibration", str(calibration)) == 2
    assert "another model" in one_sentence(capsys)


def test_mistakes_are_answered_before_anything_is_generated(
    checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sampling, "sample", None)
    (tmp_path / "note.txt").write_text("kept")
    assert detect(checkpoint, "--prompt", "a dog", "--out", str(tmp_path)) == 2
    assert "it holds other files" in one_sentence(capsys)
    assert detect(checkpoint) == 2
    assert "got no prompt" in one_sentence(capsys)
    assert detect(checkpoint, "--prompts", str(tmp_path / "none.txt")) == 2
    assert "does not exist" in one_sentence(capsys)
    assert detect(checkpoint, "--prompt", "a", "--calibration", str(tmp_path / "note.txt")) == 2
    assert "no calibration" in one_sentence(capsys)
    assert detect(checkpoint, "--prompt", "a", "--device", "cuda:99") == 2
    assert "cannot use the device cuda:99" in one_sentence(capsys)


def test_a_folder_that_is_no_pipeline_is_refused(tmp_path, capsys):
    assert detect(tmp_path / "none", "--prompt", "a dog") == 2
    assert "expected a folder in diffusers' layout" in one_sentence(capsys)
    assert detect(tmp_path, "--prompt", "a dog") == 2
    assert "without model_index.json" in one_sentence(capsys)
    (tmp_path / "model_index.json").write_text("{broken")
    assert detect(tmp_path, "--prompt", "a dog") == 2
    assert "as a diffusers pipeline: " in one_sentence(capsys)


def test_a_checkpoint_with_a_missing_part_is_refused(checkpoint, tmp_path, capsys):
    copy = shutil.copytree(checkpoint, tmp_path / "model")
    shutil.rmtree(copy / "unet")
    assert detect(copy, "--prompt", "a dog") == 2
    assert "as a diffusers pipeline: " in one_sentence(capsys)


def test_a_report_that_cannot_be_written_is_refused_before_anything_is_generated(
    checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sampling, "sample", None)
    (tmp_path / "file").touch()
    assert detect(checkpoint, "--prompt", "a dog", "--out", str(tmp_path / "file" / "report")) == 2
    assert "file is a file, expected a folder" in one_sentence(capsys)


@pytest.mark.parametrize("steps", ["1000", "2000"])
def test_more_steps_than_noise_levels_are_refused(checkpoint, capsys, steps):
    assert detect(checkpoint, "--prompt", "a dog", "--steps", steps) == 2
    assert f"got --steps {steps}, expected at most 999: the model's DDIM" in one_sentence(capsys)


def test_a_detector_that_cannot_read_the_model_is_left_out(shallow_checkpoint, tmp_path, capsys):
    out = tmp_path / "report"
    arguments = ["--prompt", "a fox", "--prompt", "a dog", "--batch-size", "1", "--out", str(out)]
    assert detect(shallow_checkpoint, *arguments) == 0
    captured = capsys.readouterr()
    assert captured.err.count("LayerEntropy cannot read this model: got layer 3") == 1
    assert "Layer" not in captured.out
    assert "Magnitude" in captured.out
    assert "LayerEntropy cannot read this model" in (out / "index.html").read_text()


def test_guidance_that_is_off_is_refused_by_the_parser(checkpoint, capsys):
    with pytest.raises(SystemExit) as stop:
        detect(checkpoint, "--prompt", "a dog", "--guidance", "1")
    assert stop.value.code == 2
    assert "detectors need guidance" in capsys.readouterr().err


def test_how_often_a_verdict_is_wrong_is_said_where_it_was_counted(
    checkpoint, calibration, tmp_path, capsys
):
    arguments = ["--prompt", "a fox", "--calibration", str(calibration)]
    sentence = Calibration.load(calibration).joint_sentence
    assert sentence.startswith("A verdict joins 4 detectors, of which at least one flags ")
    assert detect(checkpoint, *arguments, "--out", str(tmp_path / "report")) == 0
    assert sentence in " ".join(capsys.readouterr().out.split())
    assert f"<li>{sentence}</li>" in (tmp_path / "report" / "index.html").read_text()
    content = json.loads(calibration.read_text())
    del content["joint"]  # as an earlier memattn wrote it
    calibration.write_text(json.dumps(content))
    assert detect(checkpoint, *arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "one star makes the verdict. A detector is evidence, not proof." in printed

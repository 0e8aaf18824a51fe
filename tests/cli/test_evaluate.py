"""`memattn evaluate` from end to end: on a piece of the testbed, and on a plain checkpoint."""

import csv
import dataclasses
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from memattn.cli.main import main
from memattn.evaluation.calibration import Calibration
from memattn.evaluation.scores_file import read_scores
from memattn.testbed import load_manifest
from memattn.testbed.manifest import DATA, MODEL, hash_files
from tests.cli.stopped import stop_in_the_third_batch

OURS = {"index.html", "figures", "table.csv", "scores.csv", "calibration.json", "controls"}
OF_A_TESTBED = OURS | {"localisers.csv", "similarity.csv"}


def evaluate(model, out, *more):
    options = ["--steps=2", "--batch-size=4", "--device=cpu", "--false-positive-rate=0.25"]
    return main(["evaluate", f"--model={model}", f"--out={out}", *options, *map(str, more)])


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def piece(tmp_path_factory):
    """The packaged testbed with eleven of its prompts, one of them a false copy."""
    folder = tmp_path_factory.mktemp("testbed") / "data"
    shutil.copytree(DATA, folder)
    (folder / "without-duplicates.csv").unlink(missing_ok=True)
    manifest = load_manifest()
    copies = [
        next(entry for entry in manifest.select(group) if entry.is_memorized)
        for group in ("verbatim", "template", "template")
    ]
    copies[2] = [entry for entry in manifest.select("template") if entry.is_memorized][1]
    ordinary = [
        entry
        for split in ("calibration", "reporting")
        for entry in [
            e
            for e in manifest.select("ordinary", split=split)
            if e.prompt not in manifest.false_copies
        ][:4]
    ]
    entries = (*copies, manifest.select("seen_once")[0], *ordinary)
    dataclasses.replace(manifest, entries=entries, false_copies={ordinary[0].prompt: 1}).save(
        folder
    )
    return folder


@pytest.fixture(scope="module")
def other_testbed(piece, tmp_path_factory):
    """The same with other weights, so another model."""
    folder = tmp_path_factory.mktemp("other") / "data"
    shutil.copytree(piece, folder)
    (weights,) = (folder / MODEL / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["conv_out.bias"] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    dataclasses.replace(load_manifest(piece), files=hash_files(folder)).save(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(piece, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluated") / "deep" / "out"
    assert evaluate(piece, out) == 0
    return out


@pytest.fixture
def files(tmp_path):
    memorized, ordinary = tmp_path / "memorized.txt", tmp_path / "ordinary.txt"
    memorized.write_text("a red fox\nthe lazy dog\n")
    ordinary.write_text("\n".join(["a fox", "a dog", "the sea", "a house", "the red sea", "blue"]))
    return [f"--memorized={memorized}", f"--ordinary={ordinary}"]


def refused(capsys):
    """The one sentence on stderr."""
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("memattn evaluate: ")]
    assert "Traceback" not in captured.err
    assert len(lines) == 1
    return lines[0]


def test_a_testbed_needs_nothing_but_a_folder(piece, evaluated):
    assert {path.name for path in evaluated.iterdir()} == OF_A_TESTBED
    manifest = load_manifest(piece)
    scores = read_scores(evaluated / "scores.csv")
    roles = {case.prompt: case.role for case in scores.cases}
    assert manifest.entries[4].prompt not in roles  # gave a copy, so it is neither
    expected = ["memorized"] * 3 + ["other"] + ["calibration"] * 3 + ["ordinary"] * 4
    kept = [entry for entry in manifest.entries if entry.prompt in roles]
    assert [roles[entry.prompt] for entry in kept] == expected
    positions = {entry.prompt: n for n, entry in enumerate(manifest.entries)}
    assert all(case.seed == 4 + positions[case.prompt] for case in scores.cases)
    assert list(scores.scores)[-1] == "LayerEntropy(layer=9)"
    calibration = Calibration.load(evaluated / "calibration.json")
    assert set(calibration.samples.values()) == {3}
    control = read_scores(evaluated / "controls" / "random-weights.csv")
    assert {case.role for case in control.cases} == {"memorized", "ordinary"}


def test_the_table_has_a_line_per_detector_and_population(evaluated):
    lines = rows(evaluated / "table.csv")
    control = "control: random weights"
    groups = ["verbatim", "template"]
    populations = ["all", *groups, control, *(f"{control}, {group}" for group in groups)]
    assert [line["population"] for line in lines] == populations * 5
    first = lines[0]
    assert (first["memorized"], first["ordinary"], first["of"]) == ("3", "4", "3")
    assert first["tpr_at_1_percent_fpr"] == ""  # four ordinary prompts tell nothing about 1 %
    assert 0 <= float(first["auroc_low"]) <= float(first["auroc"]) <= float(first["auroc_high"])
    assert [line["memorized"] for line in lines[:6]] == ["3", "1", "2"] * 2
    there = {line["population"]: float(line["auroc"]) for line in lines[:6]}
    of_groups = (there[f"{control}, verbatim"] + 2 * there[f"{control}, template"]) / 3
    assert there[control] == pytest.approx(of_groups)  # of the same ordinary prompts
    calls = {line["detector"]: line["calls"] for line in lines if line["population"] == "all"}
    assert calls["NoiseMagnitude"] == "1"
    assert calls["BrightEnding"] == "2"


def test_tables_are_printed_and_a_stopped_run_goes_on_to_the_same_scores(
    piece, evaluated, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    stop_in_the_third_batch(monkeypatch)
    assert evaluate(piece, out) == 130
    assert [path.name for path in out.iterdir()] == ["unfinished"]
    monkeypatch.undo()
    assert evaluate(piece, out, "--seed=1") == 2
    assert "unfinished work in" in capsys.readouterr().err
    assert evaluate(piece, out) == 0
    printed, err = capsys.readouterr()
    assert "model: 8 of 11 were there already" in err
    assert {path.name for path in out.iterdir()} == OF_A_TESTBED
    for name in ("scores.csv", "localisers.csv", "similarity.csv"):
        assert (out / name).read_bytes() == (evaluated / name).read_bytes()
    lines = [line for line in printed.splitlines() if str(out) not in line]
    assert max(map(len, lines)) <= 100
    assert re.search(r"all +verbatim +template", printed)
    assert "random weights" in printed
    assert "BrightEnding  model " in printed
    assert re.search(r"verbatim +memorized +1 +\d \(\d+%\)", printed)
    assert re.search(r"seen once +neither +1 ", printed)
    last = printed.splitlines()[-1]
    assert re.fullmatch(r"took (\d+ min )?\d+ s in all; 8 of 18 runs were there already", last)


def test_what_is_printed_of_localisers_and_images_is_kept(piece, evaluated, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(piece, out) == 0
    printed = capsys.readouterr().out
    localisers = rows(out / "localisers.csv")
    assert [(line["localiser"], line["on"]) for line in localisers] == [
        ("BrightEnding", "model"),
        ("BrightEnding", "random weights"),
    ]
    for line in localisers:
        shown = [
            "{} ({}-{})".format(
                *(f"{float(line[name + end]):.2f}" for end in ("", "_low", "_high"))
            )
            for name in ("average_precision", "iou", "native_average_precision", "native_iou")
        ]
        assert re.search(rf"{line['on']} +{' +'.join(map(re.escape, shown))}\n", printed)
    chance = f"(AP) of {float(localisers[0]['chance_average_precision']):.2f}, and"
    plain = " ".join(printed.split())
    assert chance in plain
    assert f"an IoU of {float(localisers[0]['chance_iou']):.2f}" in plain
    similarity = rows(out / "similarity.csv")
    assert list(similarity[0]) == ["group", "counted_as", "images", "copies", "alignment"]
    assert [line["group"] for line in similarity] == [
        "verbatim",
        "template",
        "ordinary",
        "seen_once",
    ]
    page = (out / "index.html").read_text()
    for line in similarity:
        group, aligned = line["group"].replace("_", " "), f"{float(line['alignment']):.2f}"
        what, count, copies = line["counted_as"], line["images"], line["copies"]
        assert re.search(rf"{group} +{what} +{count} +{copies} \(\d+%\) +{aligned}\n", printed)
        cells = page.split(f'<th scope="row">{group}</th>')[1].split("</tr>")[0]
        assert f"<td>{what}</td>" in cells
        assert f'<td class="number">{copies} (' in cells
        assert f'<td class="number">{aligned}</td>' in cells
    accuracy = load_manifest(piece).attribute_accuracy
    (by_chance,) = re.findall(r"prompts the same images get (0\.\d\d)\.", plain)
    assert 0 < float(by_chance) < 0.6
    stated = f"recall {accuracy['recall']:.2f}, precision {accuracy['precision']:.2f}"
    assert f"which a classifier ({stated}) finds in its image" in plain
    assert f"prompts the same images get {by_chance}." in page
    assert re.fullmatch(r"took (\d+ min )?\d+ s in all", printed.splitlines()[-1])


def test_a_control_may_be_an_earlier_evaluation_or_a_testbed(
    piece, other_testbed, evaluated, tmp_path
):
    stored = evaluated / "controls" / "random-weights.csv"
    out = tmp_path / "out"
    controls = [f"--control=Stored one={stored}", f"--control=Füchse={other_testbed}"]
    assert evaluate(piece, out, *controls) == 0
    lines = {
        (line["detector"], line["population"]): line["auroc"] for line in rows(out / "table.csv")
    }
    for detector in ("NoiseMagnitude", "BrightEnding"):
        random = lines[detector, "control: random weights"]
        assert lines[detector, "control: Stored one"] == random
        assert (detector, "control: Füchse") in lines
    names = {path.name for path in (out / "controls").iterdir()}
    assert names == {"random-weights.csv", "stored-one.csv", "füchse.csv"}
    again = read_scores(out / "controls" / "stored-one.csv")
    assert (again.model, again.settings) == (
        read_scores(stored).model,
        read_scores(stored).settings,
    )
    assert read_scores(out / "scores.csv").model == read_scores(evaluated / "scores.csv").model
    assert read_scores(out / "controls" / "füchse.csv").model != again.model


def test_the_model_under_test_is_no_control_of_itself(piece, evaluated, tmp_path, capsys):
    out = tmp_path / "out"
    copy = shutil.copytree(piece, tmp_path / "copy")
    assert evaluate(piece, out, f"--control=itself={copy}") == 2
    assert f"got the control {copy}, which is the model under test itself" in refused(capsys)
    assert evaluate(piece, out, f"--control=itself={evaluated / 'scores.csv'}") == 2
    assert "scores.csv of the model under test itself" in refused(capsys)
    stored = evaluated / "controls" / "random-weights.csv"
    assert evaluate(piece, out, f"--control=stored={stored}", "--steps=3") == 2
    assert "made with steps=2 guidance_scale=7.5" in refused(capsys)
    assert not out.exists()


def test_a_testbeds_own_control_is_taken_where_it_fits(piece, evaluated, tmp_path, capsys):
    data = shutil.copytree(piece, tmp_path / "data")
    shutil.copy(evaluated / "controls" / "random-weights.csv", data / "without-duplicates.csv")
    out = tmp_path / "out"
    assert evaluate(data, out) == 0
    assert "is left out" not in capsys.readouterr().out
    populations = {line["population"] for line in rows(out / "table.csv")}
    assert "control: without duplicates" in populations
    assert (out / "controls" / "without-duplicates.csv").is_file()
    # Another model of that name stands in for it: two could not share the file.
    stored = out / "controls" / "random-weights.csv"
    assert evaluate(data, out, f"--control=Without Duplicates={stored}") == 0
    populations = {line["population"] for line in rows(out / "table.csv")}
    assert "control: Without Duplicates" in populations
    assert "control: without duplicates" not in populations
    capsys.readouterr()
    assert evaluate(data, tmp_path / "three", "--steps=3") == 0
    printed = capsys.readouterr().out
    assert "The control without duplicates is left out: got scores in" in printed
    assert "made with steps=2 " in printed


def test_any_checkpoint_is_measured_on_two_files(checkpoint, files, tmp_path, monkeypatch, capsys):
    out, pictures = tmp_path / "out", tmp_path / "pictures" / "deep"
    pictures.mkdir(parents=True)
    for name in ("one.png", "two.png"):
        pixels = np.random.default_rng(len(name)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / name)
    options = [*files, f"--training-images={pictures.parent}"]
    assert evaluate(checkpoint, out, *options) == 0
    cases = read_scores(out / "scores.csv").cases
    by_role = {
        role: [case.prompt for case in cases if case.role == role]
        for role in ("memorized", "calibration", "ordinary")
    }
    assert by_role == {
        "memorized": ["a red fox", "the lazy dog"],
        "calibration": ["a fox", "the sea", "the red sea"],
        "ordinary": ["a dog", "a house", "blue"],
    }
    assert sorted(case.seed for case in cases) == list(range(8))
    printed = capsys.readouterr().out
    assert re.search(r"group +counted as +images +by SSIM +by correlation", printed)
    assert re.search(r"memorized +memorized +2 ", printed)
    assert {path.name for path in out.iterdir()} == OURS | {"similarity.csv"}
    columns = ["group", "counted_as", "images", "nearest_by_ssim", "nearest_by_correlation"]
    assert list(rows(out / "similarity.csv")[0]) == columns
    assert "Generated images" in (out / "index.html").read_text()
    # Evaluated again, the folder is replaced as a whole.
    monkeypatch.chdir(checkpoint)
    assert evaluate(".", out, *files) == 0
    assert {path.name for path in out.iterdir()} == OURS
    assert "Generated images" not in (out / "index.html").read_text()
    assert f"achieve on {checkpoint.name}<" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--memorized=m.txt"], "got --memorized for a testbed, expected no such option: its"),
        (
            ["--memorized=m.txt", "--ordinary=o.txt", "--training-images=."],
            "got --memorized, --ordinary and --training-images for a testbed, expected no such",
        ),
        (["--training-images=."], "got --training-images for a testbed"),
        (["--control=nothing"], "got --control 'nothing', expected NAME=PATH"),
        (["--control==x"], "got --control '=x', expected NAME=PATH"),
        (["--control=?!=."], "got a control named '?!', expected a letter or a digit"),
        (["--control=a=missing"], "got the control missing, which does not exist"),
        (["--control=Random Weights=."], "got a second control named 'Random Weights'"),
        (["--control=a b=.", "--control=a-b=."], "got a second control named 'a-b'"),
        (["--sscd=missing.pt"], "missing.pt cannot be read"),
        (["--clip=missing"], "got missing, expected a folder with a CLIP"),
    ],
)
def test_mistakes_are_answered_before_anything_is_loaded(
    piece, tmp_path, capsys, monkeypatch, more, sentence
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("memattn.cli.pipelines.load_pipeline", None)
    assert evaluate(piece, "out", *more) == 2
    assert sentence in refused(capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_takes_two_files_that_can_be_used(
    checkpoint, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("memattn.cli.pipelines.load_pipeline", None)
    out = tmp_path / "out"
    assert evaluate("typo", out) == 2
    assert "got the model typo, expected 'testbed' or the folder of a" in refused(capsys)
    assert evaluate(checkpoint, out) == 2
    assert "without --memorized and --ordinary, expected a file" in refused(capsys)
    assert evaluate(checkpoint, out, files[0]) == 2
    assert "without --ordinary, expected" in refused(capsys)
    assert evaluate(checkpoint, out, files[0], f"--ordinary={tmp_path / 'none.txt'}") == 2
    assert "which does not exist" in refused(capsys)
    assert evaluate(checkpoint, out, *files, "--sscd=x.pt") == 2
    assert "got --sscd without --training-images" in refused(capsys)
    assert evaluate(checkpoint, out, *files, f"--training-images={tmp_path / 'none'}") == 2
    assert "expected a folder" in refused(capsys)
    assert evaluate(checkpoint, out, *files, "--false-positive-rate=0.01") == 2
    assert "got 6 ordinary prompts in" in (sentence := refused(capsys))
    assert "expected at least 197 for a false-positive rate of 0.01" in sentence
    (tmp_path / "memorized.txt").write_text("A  Dog\n")
    assert evaluate(checkpoint, out, *files) == 2
    assert "got the prompt 'a dog' twice in" in refused(capsys)
    assert not out.exists()


def test_a_folder_with_other_files_is_kept(piece, evaluated, tmp_path, capsys):
    (tmp_path / "index.html").write_text("my own page")
    assert evaluate(piece, tmp_path) == 2
    assert "it holds other files" in refused(capsys)
    assert evaluate(piece, tmp_path / "index.html") == 2
    assert "got the file" in refused(capsys)
    (evaluated / "thesis.tex").touch()
    assert evaluate(piece, evaluated) == 2
    (evaluated / "thesis.tex").unlink()
    assert "it holds other files" in refused(capsys)


def test_a_control_that_lacks_a_prompt_or_runs_otherwise_is_refused(
    piece, evaluated, checkpoint, tmp_path, capsys
):
    lines = (evaluated / "controls" / "random-weights.csv").read_text().splitlines(keepends=True)
    short = tmp_path / "short.csv"
    short.write_text("".join(line for line in lines if ",ordinary,ordinary," not in line))
    assert evaluate(piece, tmp_path / "out", f"--control=short={short}") == 2
    assert f"got scores in {short} without 4 of 7 prompts" in refused(capsys)
    other = shutil.copytree(checkpoint, tmp_path / "other")
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.02"))
    assert evaluate(piece, tmp_path / "out", f"--control=other={other}") == 2
    assert f"cannot use the control {other}: got a pipeline with scheduler" in refused(capsys)


def test_an_image_that_is_damaged_is_named(checkpoint, files, tmp_path, capsys):
    (tmp_path / "pictures").mkdir()
    options = [*files, f"--training-images={tmp_path / 'pictures'}"]
    assert evaluate(checkpoint, tmp_path / "out", *options) == 2
    assert "without an image, expected at least one" in refused(capsys)
    (tmp_path / "pictures" / "one.png").write_bytes(b"no picture")
    assert evaluate(checkpoint, tmp_path / "out", *options) == 2
    assert "cannot read the training image" in refused(capsys)

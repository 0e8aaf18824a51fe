import dataclasses

import pytest
import torch

from memattn.errors import InputError
from memattn.evaluation.cases import Case
from memattn.evaluation.scores_file import read_scores, write_scores
from memattn.evaluation.settings import RunSettings

CASES = (
    Case('a "red" fox, by the sea', 3, "memorized", "verbatim", 1024),
    Case("ein Füchslein", 4, "ordinary", "ordinary", 0),
    Case("a fox", 4, "other", "memorized"),
)
SCORES = {
    "NoiseMagnitude": torch.tensor([1 / 3, 2e-38, 16777217.0]),
    "LayerEntropy(layer=9)": torch.tensor([0.1, -0.0, 5.0]),
}


SETTINGS = RunSettings(steps=20, height=64, width=96, scheduler="DDIMScheduler-12345678")
MODEL = "0123456789abcdef" * 4


@pytest.fixture
def path(tmp_path):
    write_scores(tmp_path / "scores.csv", CASES, SCORES, model=MODEL, settings=SETTINGS)
    return tmp_path / "scores.csv"


def test_every_bit_and_every_case_comes_back(path):
    found = read_scores(path)
    assert list(found.scores) == list(SCORES)
    for name, values in SCORES.items():
        assert torch.equal(found.scores[name].view(torch.int32), values.view(torch.int32))
    fields = ("prompt", "seed", "role", "group", "showings")
    for one, other in zip(found.cases, CASES, strict=True):
        assert [getattr(one, f) for f in fields] == [getattr(other, f) for f in fields]


def test_it_is_a_plain_table(path):
    lines = path.read_text().splitlines()
    assert lines[0] == HEADER.decode() + ",NoiseMagnitude,LayerEntropy(layer=9)"
    words = "steps=20 guidance_scale=7.5 height=64 width=96 scheduler=DDIMScheduler-12345678"
    assert lines[3] == f"a fox,4,other,memorized,,{MODEL},{words},16777216.0,5.0"


def test_a_byte_order_mark_is_no_part_of_it(path):
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [case.seed for case in read_scores(path).cases] == [3, 4, 4]


def test_scores_are_found_by_prompt_and_seed(path):
    wanted = [CASES[2], Case("ein Füchslein", 4, "memorized", "whatever"), CASES[0]]
    found = read_scores(path).of(wanted, ["BrightEnding", "NoiseMagnitude"])
    assert list(found) == ["NoiseMagnitude"]  # what it has
    assert torch.equal(found["NoiseMagnitude"], SCORES["NoiseMagnitude"][[2, 1, 0]])


def test_a_case_that_is_missing_is_named(path):
    with pytest.raises(InputError, match=r"without 1 of 2 prompts, first 'a fox' with seed 5"):
        read_scores(path).of([CASES[0], Case("a fox", 5, "ordinary", "")], ["NoiseMagnitude"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": MODEL}, "of the model under test itself, expected those of another one"),
        ({"settings": dataclasses.replace(SETTINGS, steps=3)}, r"steps=20 .* expected steps=3 "),
        (
            {"settings": dataclasses.replace(SETTINGS, scheduler="DDIM")},
            "expected .*=DDIM, as",
        ),
        ({"detectors": ["BrightEnding"]}, r"by NoiseMagnitude, LayerEntropy\(layer=9\), expected"),
        ({"cases": [Case("new", 1, "ordinary", "")]}, "without 1 of 1 prompts, first 'new'"),
    ],
)
def test_what_is_no_control_is_refused_in_one_sentence(path, change, sentence):
    asked = {"cases": CASES, "detectors": ["BrightEnding", "NoiseMagnitude"]}
    asked |= {"model": "f" * 64, "settings": SETTINGS}
    stored = read_scores(path)
    stored.check(**asked)
    with pytest.raises(InputError, match=sentence) as error:
        stored.check(**asked | change)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


HEADER = b"prompt,seed,role,group,showings,model,settings"
LINE = b"\na,1,other,,,m,s,"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "which does not exist"),
        (b"", "with the columns none"),
        (HEADER, "with the columns prompt, seed"),
        (
            b"prompt,seed,role,group,showings,A\n",
            "expected .*, group, showings, model",
        ),
        (b"prompt,seed,group,role,showings,model,settings,A\n", "expected prompt, seed, role"),
        (HEADER + b",A\n", "without a line of scores"),
        (HEADER + b",A" + LINE + b"1,2", "line 2: 9 cells, expected 8"),
        (HEADER + b",A" + LINE + b"1\na,1,some,,,m,s,1", "line 3: role 'some'"),
        (HEADER + b",A" + LINE + b"1\na,1,other,,,M,s,1", "line 3: model 'M', expected 'm' as in"),
        (HEADER + b",A" + LINE + b"1\na,1,other,,,m,t,1", "line 3: settings 't', expected 's'"),
        (HEADER + b",A\na,x,other,,,m,s,1", "line 2: invalid literal for int"),
        (HEADER + b",A" + LINE + b"much", "line 2: could not convert"),
        (
            HEADER + b",A,B" + LINE + b"1,2" + LINE + b"1,nan",
            "line 3: score nan, expected a",
        ),
        (HEADER + b",A" + LINE + b"-inf", "line 2: score -inf, expected a finite"),
        (HEADER + b",A" + LINE + b"1e39", "line 2: score 1e39, expected a finite"),
        (b"\xff\xfe", "expected a table of scores"),
    ],
)
def test_another_file_is_refused_in_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "scores.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as error:
        read_scores(path)
    assert "\n" not in str(error.value)

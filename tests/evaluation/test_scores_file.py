import pytest
import torch

from memattn.errors import InputError
from memattn.evaluation.cases import Case
from memattn.evaluation.scores_file import read_scores, write_scores

CASES = (
    Case('a "red" fox, by the sea', 3, "memorized", "verbatim", 1024),
    Case("ein Füchslein", 4, "ordinary", "ordinary", 0),
    Case("a fox", 4, "other", "memorized"),
)
SCORES = {
    "NoiseMagnitude": torch.tensor([1 / 3, 2e-38, 16777217.0]),
    "LayerEntropy(layer=9)": torch.tensor([0.1, -0.0, 5.0]),
}


@pytest.fixture
def path(tmp_path):
    write_scores(tmp_path / "scores.csv", CASES, SCORES)
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
    assert lines[0] == "prompt,seed,role,group,showings,NoiseMagnitude,LayerEntropy(layer=9)"
    assert lines[3].startswith("a fox,4,other,memorized,,")


def test_scores_are_found_by_prompt_and_seed(path):
    wanted = [CASES[2], Case("ein Füchslein", 4, "memorized", "whatever")]
    found = read_scores(path).of(wanted, ["NoiseMagnitude"])
    assert list(found) == ["NoiseMagnitude"]
    assert torch.equal(found["NoiseMagnitude"], SCORES["NoiseMagnitude"][[2, 1]])


def test_what_is_missing_is_named(path):
    stored = read_scores(path)
    with pytest.raises(InputError, match=r"without BrightEnding, expected every detector"):
        stored.of(CASES, ["NoiseMagnitude", "BrightEnding"])
    with pytest.raises(InputError, match=r"without 1 of 2 prompts, first 'a fox' with seed 5"):
        stored.of([CASES[0], Case("a fox", 5, "ordinary", "")], ["NoiseMagnitude"])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "which does not exist"),
        (b"", "with the columns none"),
        (b"prompt,seed,role,group,showings\n", "with the columns prompt, seed"),
        (b"prompt,seed,group,role,showings,A\n", "expected prompt, seed, role"),
        (b"prompt,seed,role,group,showings,A\n", "without a line of scores"),
        (b"prompt,seed,role,group,showings,A\na,1,other,,,1,2\n", "line 2: 7 cells, expected 6"),
        (
            b"prompt,seed,role,group,showings,A\na,1,other,,,1\na,1,some,,,1\n",
            "line 3: role 'some'",
        ),
        (b"prompt,seed,role,group,showings,A\na,x,other,,,1\n", "line 2: invalid literal for int"),
        (b"prompt,seed,role,group,showings,A\na,1,other,,,much\n", "line 2: could not convert"),
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

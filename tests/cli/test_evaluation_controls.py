import pytest
import torch

from memattn.cli.evaluation_controls import STORED, slug, stored_control
from memattn.errors import InputError
from memattn.evaluation.cases import Case
from memattn.evaluation.scores_file import write_scores
from memattn.evaluation.settings import RunSettings


def test_a_testbeds_stored_control_is_found(tmp_path):
    assert stored_control(tmp_path) is None
    cases = [Case("a fox", 0, "ordinary", "ordinary")]
    scores = {"NoiseMagnitude": torch.tensor([1.0])}
    write_scores(tmp_path / STORED, cases, scores, model="f" * 64, settings=RunSettings())
    assert stored_control(tmp_path).scores["NoiseMagnitude"].tolist() == [1.0]
    (tmp_path / STORED).write_bytes(b"damaged")
    with pytest.raises(InputError, match="with the columns damaged"):
        stored_control(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Without Duplicates", "without-duplicates"),
        ("without_duplicates!", "without-duplicates"),
        ("../Füchse 2", "füchse-2"),
        ("_?!/", ""),
    ],
)
def test_names_that_give_the_same_file_are_the_same(name, expected):
    assert slug(name) == expected

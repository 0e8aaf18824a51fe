import pytest
import torch

from memattn.cli.evaluation_controls import STORED, stored_control
from memattn.evaluation.cases import Case
from memattn.evaluation.scores_file import write_scores
from memattn.evaluation.settings import RunSettings


def test_a_testbeds_stored_control_is_found(tmp_path):
    assert stored_control(tmp_path, RunSettings(), 0) is None
    cases = [Case("a fox", 0, "ordinary", "ordinary")]
    write_scores(tmp_path / STORED, cases, {"NoiseMagnitude": torch.tensor([1.0])})
    found = stored_control(tmp_path, RunSettings(), 0)
    assert found.scores["NoiseMagnitude"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("settings", "seed"),
    [(RunSettings(steps=20), 0), (RunSettings(guidance_scale=5.0), 0), (RunSettings(), 1)],
)
def test_it_is_left_out_where_images_are_made_otherwise(tmp_path, settings, seed):
    (tmp_path / STORED).touch()
    assert stored_control(tmp_path, settings, seed) is None

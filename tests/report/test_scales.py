import numpy as np
import pytest

from memattn.report.page import DetectorRow, SampleCard, Score
from memattn.report.scales import scale_for


def row(threshold, ordinary):
    return DetectorRow("NoiseMagnitude", "", "1 call", threshold, ordinary, "", "2407.21720")


def card(value):
    return SampleCard(
        prompt="a fox",
        group="",
        seed=0,
        image=np.zeros((2, 2, 3), np.uint8),
        scores=(Score("NoiseMagnitude", value, None), Score("Other", 1e9, None)),
        tokens=(),
    )


def test_a_scale_holds_scores_threshold_and_ordinary_range():
    scale = scale_for(row(5.0, (1.0, 4.0)), [card(2.0), card(9.0)])
    assert [0 < scale.percent(value) < 100 for value in (1.0, 2.0, 4.0, 5.0, 9.0)] == [True] * 5
    assert scale.percent(1.0) < scale.percent(5.0) < scale.percent(9.0)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0])
def test_a_scale_of_one_value_puts_it_in_the_middle(value):
    assert scale_for(row(None, None), [card(value)]).percent(value) == pytest.approx(50.0)


def test_a_value_off_the_scale_stands_at_its_end():
    scale = scale_for(row(None, (0.0, 1.0)), [])
    assert (scale.percent(-50.0), scale.percent(50.0)) == (0.0, 100.0)

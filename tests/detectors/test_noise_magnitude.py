import dataclasses

import pytest
import torch

from memattn.detectors import NoiseMagnitude
from memattn.errors import RecordError
from tests.records import build_record


def record_of(gap_squared, **changes):
    """A record with the given squared gap [S, B, h, w]."""
    gap_squared = torch.tensor(gap_squared)
    calls, samples = gap_squared.shape[:2]
    record = build_record((0.1,) * samples, calls=calls)
    return dataclasses.replace(record, gap_squared=gap_squared, **changes)


def test_norm_runs_over_all_pixels():
    record = record_of([[[[9.0, 16.0]], [[0.0, 4.0]]]])
    assert NoiseMagnitude()(record).tolist() == [5, 2]


@pytest.mark.parametrize(("calls", "expected"), [("first", 5), (1, 5), (2, 3), ("all", 4)])
def test_mean_runs_over_the_norms_of_the_calls_asked_for(calls, expected):
    record = record_of([[[[9.0, 16.0]]], [[[1.0, 0.0]]], [[[36.0, 0.0]]]])
    assert NoiseMagnitude(calls=calls)(record).tolist() == [expected]


@pytest.mark.parametrize(("calls", "one"), [("first", True), (1, True), (2, False), ("all", False)])
def test_one_call_tells_whether_the_first_call_suffices(calls, one):
    assert NoiseMagnitude(calls=calls).one_call is one


def test_velocity_gap_is_measured_in_the_noise():
    # eps = alpha v + ..., alpha = 1 / sqrt(1 + sigma^2) = 0.5 for sigma = sqrt(3)
    record = record_of([[[[64.0]]]], prediction_type="v_prediction", sigmas=torch.tensor([3**0.5]))
    assert NoiseMagnitude()(record).item() == pytest.approx(4)
    assert NoiseMagnitude(space="output")(record).item() == 8


def test_infinite_noise_level_is_refused_where_the_noise_says_nothing():
    record = record_of(
        [[[[64.0]]]], prediction_type="v_prediction", sigmas=torch.tensor([torch.inf])
    )
    with pytest.raises(RecordError, match=r"infinite noise level.*use space='output'"):
        NoiseMagnitude()(record)
    assert NoiseMagnitude(space="output")(record).item() == 8


def test_unguided_run_is_refused_with_how_to_record_the_gap():
    record = dataclasses.replace(build_record(), gap_squared=None)
    with pytest.raises(RecordError, match=r"holds no gap_squared.*guidance"):
        NoiseMagnitude()(record)


def test_more_calls_than_recorded_are_refused():
    with pytest.raises(RecordError, match="reads the first 9 denoiser calls: got a record of 5"):
        NoiseMagnitude(calls=9)(build_record(calls=5))


def test_all_calls_of_a_stopped_run_are_refused():
    with pytest.raises(RecordError, match="got a record of the first 3 of 5"):
        NoiseMagnitude(calls="all")(build_record(calls=5).truncate(3))


@pytest.mark.parametrize("calls", [0, -1, "last", 2.5, True])
def test_calls_without_meaning_are_refused(calls):
    with pytest.raises(ValueError, match="expected 'first', 'all' or a positive integer"):
        NoiseMagnitude(calls=calls)

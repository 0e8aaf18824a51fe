import dataclasses
import math

import pytest
import torch

from memattn.detectors import AttentionEntropy
from memattn.errors import RecordError
from memattn.records import Record
from tests.records import build_record

LN2 = math.log(2)
ONE, TWO, FOUR = [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4


def record_of(attention, heads=(1,), lengths=(3,)):
    """A record with the given attention [S, N, B, Lk]."""
    attention = torch.tensor(attention)
    layers = attention.shape[1]
    queries = tuple(4**n for n in range(1, layers + 1))
    return Record(
        layers=tuple(f"layer{n}" for n in range(layers)),
        layer_heads=heads,
        layer_queries=queries,
        timesteps=torch.zeros(attention.shape[0]),
        sigmas=torch.ones(attention.shape[0]),
        prediction_type="epsilon",
        scheduled_calls=attention.shape[0],
        prompt_lengths=torch.tensor(lengths),
        token_mass=attention * torch.tensor(queries)[:, None, None],
    )


def run(*calls, **options):
    """A record of one layer and one sample."""
    return record_of([[[call]] for call in calls], **options)


def test_signed_form_of_a_hand_made_run():
    # late call: E = ln 4, E^S over the last two tokens = ln 4 / 2; first call: E^S = 0
    score = AttentionEntropy()(run(TWO, ONE, FOUR)).item()
    assert score == pytest.approx(math.log(4) + math.log(4) / 2)


def test_second_terms_differ_in_sign_where_summary_entropy_falls():
    record = run(FOUR, ONE, TWO)
    fall = 2 * LN2 / 2
    assert AttentionEntropy()(record).item() == pytest.approx(LN2 - fall)
    absolute = AttentionEntropy(second_term="absolute")
    assert absolute(record).item() == pytest.approx(LN2 + fall)


def test_absolute_form_takes_each_calls_difference_before_averaging():
    # with L = 3 the summary tokens are the last two: E^S is ln2/2, then 0 and ln2 at late calls
    half = [0.5, 0, 0.5, 0]  # E^S = ln2 / 2
    both = [0, 0, 0.5, 0.5]  # E^S = ln2
    record = run(half, ONE, both)
    late = AttentionEntropy(last_fraction=0.67)
    assert late(record).item() == pytest.approx(LN2 / 2 + 0)
    absolute = dataclasses.replace(late, second_term="absolute")
    assert absolute(record).item() == pytest.approx(LN2 / 2 + LN2 / 2)


def test_summary_tokens_start_at_the_end_token_of_each_prompt():
    # uniform attention late, one token first: E^S = (number of summary tokens) * ln 4 / 4
    lengths = (2, 3, 4)
    record = record_of([[[ONE] * 3], [[FOUR] * 3]], lengths=lengths)
    expected = [math.log(4) * (1 + (4 - (length - 1)) / 4) for length in lengths]
    torch.testing.assert_close(AttentionEntropy()(record), torch.tensor(expected))


def test_mean_counts_every_head_once_whatever_its_layer():
    record = record_of([[[ONE], [[0.0, 1, 0, 0]]]] * 2, heads=(1, 3), lengths=(4,))
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert AttentionEntropy()(record).item() == pytest.approx(expected)


@pytest.mark.parametrize(("calls", "late"), [(1, 1), (4, 1), (8, 2), (50, 10), (51, 10)])
def test_late_calls_are_the_rounded_last_fifth(calls, late):
    record = build_record((0.2, 0.7), calls=calls)
    mean = record.mean_attention().double()
    terms = -mean * mean.log()
    summary = terms[..., 3:].sum(-1)
    expected = (terms.sum(-1) + summary - summary[0])[calls - late :].mean(0).float()
    torch.testing.assert_close(AttentionEntropy()(record), expected)


def test_stopped_run_is_refused():
    record = dataclasses.replace(build_record(calls=5), scheduled_calls=50)
    with pytest.raises(RecordError, match="whole run: got a record of the first 5 of 50"):
        AttentionEntropy()(record)


def test_shortened_record_of_unknown_schedule_is_refused():
    record = dataclasses.replace(build_record(calls=5), scheduled_calls=None)
    assert AttentionEntropy()(record).isfinite().all()
    with pytest.raises(RecordError, match="whole run: got a record of the first 4 of 5"):
        AttentionEntropy()(record.truncate(4))


def test_unknown_prompt_lengths_are_refused():
    record = dataclasses.replace(build_record(), prompt_lengths=None)
    with pytest.raises(RecordError, match=r"holds no prompt_lengths.*prompt_lengths="):
        AttentionEntropy()(record)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.1, math.nan])
def test_impossible_fraction_is_refused(fraction):
    with pytest.raises(ValueError, match=r"got last_fraction=.*expected above 0 and at most 1"):
        AttentionEntropy(last_fraction=fraction)


def test_unknown_second_term_is_refused():
    with pytest.raises(ValueError, match="expected 'signed' or 'absolute'"):
        AttentionEntropy(second_term="both")

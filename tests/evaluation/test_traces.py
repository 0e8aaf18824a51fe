"""Every score of the detectors is in the traces of the same run, to the last bit."""

import dataclasses

import pytest
import torch

from memattn import testbed
from memattn.detectors import AttentionEntropy, BrightEnding, LayerEntropy, NoiseMagnitude
from memattn.errors import RecordError
from memattn.evaluation.sampling import sample
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.traces import FIELDS, Traces, trace
from tests.records import build_record

CALLS = 3


@pytest.fixture(scope="module")
def record():
    entries = testbed.load_manifest().entries
    prompts = [entries[0].prompt, entries[30].prompt, entries[-1].prompt, "red"]
    return sample(
        testbed.load_pipeline(),
        prompts,
        seeds=range(len(prompts)),
        settings=RunSettings(steps=CALLS),
        images=False,
        fields=FIELDS,
    ).record


@pytest.fixture(scope="module")
def traces(record):
    return trace(record)


def test_every_layer_and_call_has_the_score_of_layer_entropy(record, traces):
    assert traces.entropy.shape == (CALLS, 16, 4)
    for layer in range(16):
        for call in range(CALLS):
            expected = LayerEntropy(layer=layer, call=call)(record)
            assert torch.equal(traces.entropy[call, layer].float(), expected)


@pytest.mark.parametrize("second_term", ["signed", "absolute"])
@pytest.mark.parametrize("last_fraction", [0.2, 0.7])
def test_attention_entropy_is_the_sum_of_its_terms(record, traces, second_term, last_fraction):
    detector = AttentionEntropy(last_fraction, second_term)
    level, change = detector.terms(traces.total_entropy, traces.summary_entropy)
    assert torch.equal((level + change).float(), detector(record))


def test_noise_magnitude_is_the_mean_of_the_gap(record, traces):
    assert torch.equal(traces.gap.mean(0).float(), NoiseMagnitude(calls="all")(record))
    assert torch.equal(traces.gap[:2].mean(0).float(), NoiseMagnitude(calls=2)(record))


def test_bright_ending_is_the_mean_of_the_local_gap(record, traces):
    assert torch.equal(traces.local_gap.mean(0).float(), BrightEnding()(record))


def test_begin_share_is_the_attention_on_the_first_token(record, traces):
    expected = record.token_mass[1, 2, :, 0] / record.layer_queries[2]
    torch.testing.assert_close(traces.begin_share[1, 2].float(), expected)
    assert torch.equal(traces.prompt_lengths, record.prompt_lengths)
    assert int(traces.prompt_lengths[-1]) == 3  # begin, red, end


def test_traces_come_back_from_their_tensors(traces):
    back = Traces.from_tensors(traces.tensors())
    assert back.layers == traces.layers
    for name, tensor in traces.tensors().items():
        assert torch.equal(back.tensors()[name], tensor)


def test_joined_rows_are_the_rows_of_the_whole(traces):
    joined = Traces.concatenate([traces.rows([2, 0]), traces.rows(torch.tensor([False, True] * 2))])
    order = [2, 0, 1, 3]
    assert (joined.calls, joined.samples) == (CALLS, 4)
    assert torch.equal(joined.entropy, traces.entropy[:, :, order])
    assert torch.equal(joined.begin_share, traces.begin_share[:, :, order])
    assert torch.equal(joined.local_gap, traces.local_gap[:, order])
    assert torch.equal(joined.prompt_lengths, traces.prompt_lengths[order])


def test_runs_of_other_lengths_or_layers_do_not_join(traces):
    with pytest.raises(ValueError, match="got no traces to join, expected at least one"):
        Traces.concatenate([])
    other = trace(build_record((0.1, 0.3), calls=2))
    with pytest.raises(ValueError, match="16 layers, 3 calls and of 6 layers, 2 calls"):
        Traces.concatenate([traces, other])
    layers = (*traces.layers[:4], "mine", *traces.layers[5:])
    renamed = dataclasses.replace(traces, layers=layers)
    with pytest.raises(ValueError, match=f"layer 4 is {traces.layers[4]} and .* layer 4 is mine"):
        Traces.concatenate([traces, traces, renamed])


def test_a_record_without_a_field_is_refused(record):
    with pytest.raises(RecordError, match=f"the first 2 of {CALLS} denoiser calls"):
        trace(record.truncate(2))

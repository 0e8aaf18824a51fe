"""One run, fed by hand: what is computed, and what may be overwritten after each call."""

import pytest
import torch

from memattn.errors import RecordingError
from memattn.processors.recording import LayerRecording, Statistics
from memattn.recording.run import Plan, Run

LAYERS = {"first": 2, "second": 3}
LATENT = torch.zeros(2, 4, 2, 2)


def run_of(fields, *, map_layers=(), calls, overwrite=False):
    """A finished run whose layers leave `calls`; each call's tensors may be overwritten."""
    plan = Plan(frozenset(fields), tuple(map_layers), None, None)
    recordings = {name: LayerRecording(layer=name) for name in LAYERS}
    run = Run(plan, recordings, list(LAYERS.values()), "conditional", 2, len(calls))
    for step, left in enumerate(calls):
        for name, recording in recordings.items():
            recording.statistics, recording.queries = left[name], 4
        run.collect(torch.tensor(step), LATENT)
        if overwrite and step + 1 < len(calls):
            for statistics in left.values():
                for tensor in statistics:
                    if tensor is not None:
                        tensor.zero_()
    return run.finished()


def call(*, mass=None, entropy=None, token_map=None, differs=None):
    """What every layer leaves; a value stands for a tensor filled with it."""

    def filled(value, heads, length):
        return None if value is None else torch.full((2, heads, length), float(value))

    return {
        name: Statistics(
            filled(mass, heads, 5),
            filled(entropy, heads, 5),
            filled(token_map, heads, 4),
            None if differs is None else torch.tensor(differs),
        )
        for name, heads in LAYERS.items()
    }


def test_only_the_statistics_that_a_field_needs_are_touched():
    mass = run_of({"token_mass"}, calls=[call(mass=2)])
    assert torch.equal(mass["token_mass"], torch.full((1, 2, 2, 5), 2.0))
    entropy = run_of({"entropy", "head_entropy"}, calls=[call(entropy=4)])
    assert torch.equal(entropy["entropy"], torch.full((1, 2, 2), 5.0))
    assert torch.equal(entropy["head_entropy"], torch.full((1, 5, 2), 5.0))
    maps = run_of({"token_maps"}, map_layers=LAYERS, calls=[call(token_map=3)])
    assert torch.equal(maps["token_maps"]["first"], torch.full((2, 2, 2), 3.0))


def test_maps_are_those_of_the_last_call():
    calls = [call(token_map=value) for value in (1, 2, 3)]
    maps = run_of({"token_maps"}, map_layers=["second"], calls=calls, overwrite=True)["token_maps"]
    assert torch.equal(maps["second"], torch.full((2, 2, 2), 3.0))


def test_mask_that_differed_once_is_refused_though_its_flag_was_overwritten():
    calls = [call(mass=1, differs=True), call(mass=1, differs=False)]
    with pytest.raises(RecordingError, match="mask at first, second depends"):
        run_of({"token_mass"}, calls=calls, overwrite=True)

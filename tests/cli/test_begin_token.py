import torch

from memattn.cli.begin_token import begin_token_sentence
from memattn.evaluation.traces import trace
from tests.records import build_record


def test_figures_are_means_over_layers_and_samples_of_each_group():
    record = build_record((0.1, 0.2, 0.3, 0.4))
    traces = trace(record)
    share = record.attention()[0, :, :, 0]
    down = [row for row, layer in enumerate(record.layers) if layer.startswith("down")]
    first, second = share[down][:, [2]].mean(), share[down][:, [0, 1]].mean()
    sentence = begin_token_sentence(traces, [2], [0, 1])
    assert f"down layers ({down[0]}-{down[-1]}) {first:.0%} / {second:.0%}" in sentence
    traces.begin_share[0, :, 3] = torch.nan  # neither memorized nor ordinary
    assert begin_token_sentence(traces, [2], [0, 1]) == sentence

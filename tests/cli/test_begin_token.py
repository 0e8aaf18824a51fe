import torch

from memattn.cli.begin_token import begin_token_sentence
from tests.records import build_record


def test_figures_are_means_over_layers_and_samples_of_each_group():
    record = build_record((0.1, 0.2, 0.3, 0.4))
    share = record.attention()[0, :, :, 0]
    down = [row for row, layer in enumerate(record.layers) if layer.startswith("down")]
    first, second = share[down][:, :1].mean(), share[down][:, 1:3].mean()
    sentence = begin_token_sentence(record, 1, 2)
    assert f"down layers ({down[0]}-{down[-1]}) {first:.0%} / {second:.0%}" in sentence
    record.token_mass[0, :, 3] = torch.nan  # neither memorized nor ordinary
    assert begin_token_sentence(record, 1, 2) == sentence

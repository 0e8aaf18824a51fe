import math

import pytest
import torch

from memattn.detectors import LayerEntropy
from memattn.errors import RecordError
from memattn.records import Record
from tests.records import build_record


def record_of(attention, queries=(4,), layers=("only",)):
    """A record with the given attention [S, N, B, Lk]."""
    attention = torch.tensor(attention)
    return Record(
        layers=layers,
        layer_heads=(2,) * len(layers),
        layer_queries=queries,
        timesteps=torch.zeros(attention.shape[0]),
        sigmas=torch.ones(attention.shape[0]),
        prediction_type="epsilon",
        scheduled_calls=attention.shape[0],
        token_mass=attention * torch.tensor(queries)[:, None, None],
    )


def test_entropy_of_hand_made_distributions():
    rows = [[1.0, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [0.5, 0.25, 0.125, 0.125]]
    scores = LayerEntropy(layer=0)(record_of([[rows]]))
    expected = [0.0, math.log(4), math.log(2), 1.75 * math.log(2)]
    torch.testing.assert_close(scores, torch.tensor(expected))


def test_reads_the_layer_and_call_asked_for():
    one, two, four = [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4
    record = record_of(
        [[[one], [two]], [[four], [one]]], queries=(4, 16), layers=("first", "second")
    )
    assert LayerEntropy(layer="second")(record).item() == pytest.approx(math.log(2))
    assert LayerEntropy(layer=0, call=1)(record).item() == pytest.approx(math.log(4))
    assert LayerEntropy(layer=1, call=1)(record).item() == 0


def test_default_is_the_fourth_layer_at_the_first_call():
    record = build_record()
    by_name = LayerEntropy(layer=record.layers[3], call=0)
    assert torch.equal(LayerEntropy()(record), by_name(record))
    assert LayerEntropy().one_call
    assert not LayerEntropy(call=1).one_call


@pytest.mark.parametrize("layer", [16, "up_blocks.9"])
def test_missing_layer_is_refused(layer):
    with pytest.raises(RecordError, match=r"got layer .*, expected"):
        LayerEntropy(layer=layer)(build_record())


def test_missing_call_is_refused():
    with pytest.raises(RecordError, match="reads denoiser call 5: got a record of 5 calls"):
        LayerEntropy(call=5)(build_record(calls=5))


def test_negative_call_is_refused():
    with pytest.raises(ValueError, match="got call=-1, expected 0 or more"):
        LayerEntropy(call=-1)

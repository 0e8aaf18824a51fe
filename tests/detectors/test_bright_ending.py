import dataclasses

import pytest
import torch

from memattn.detectors import BrightEnding, NoiseMagnitude
from memattn.errors import RecordError
from tests.records import LAYERS, build_record


def record_of(maps, gap_squared):
    """A record of one sample with the given maps of the first two layers and gaps [S, h, w]."""
    gap_squared = torch.tensor(gap_squared)[:, None]
    record = build_record((0.1,), calls=gap_squared.shape[0])
    token_maps = {layer: torch.tensor([m]) for layer, m in zip(LAYERS[:2], maps, strict=True)}
    return dataclasses.replace(record, gap_squared=gap_squared, token_maps=token_maps)


def test_score_of_a_hand_made_run():
    # m = (0.5, 0.1); LD = sqrt(0.25 * 16 + 0.01 * 0) / 0.3, then sqrt(0.25 * 0 + 0.01 * 900) / 0.3
    record = record_of([[[0.4, 0.2]], [[0.6, 0.0]]], [[[16.0, 0.0]], [[0.0, 900.0]]])
    assert BrightEnding(calls="first")(record).item() == pytest.approx(2 / 0.3)
    assert BrightEnding()(record).item() == pytest.approx((2 / 0.3 + 3 / 0.3) / 2)


def test_constant_mask_leaves_the_noise_magnitude():
    record = build_record()
    flat = {layer: torch.full_like(m, 0.37) for layer, m in record.token_maps.items()}
    record = dataclasses.replace(record, token_maps=flat)
    torch.testing.assert_close(BrightEnding()(record), NoiseMagnitude(calls="all")(record))


def test_mask_is_the_mean_of_the_first_level_down_layers():
    record = build_record()
    expected = (record.token_maps[LAYERS[0]] + record.token_maps[LAYERS[1]]) / 2
    torch.testing.assert_close(BrightEnding().mask(record), expected)


def test_mask_layers_are_found_by_their_queries_not_their_names():
    # in SDXL the first level has no cross-attention: the largest maps are in the second
    layers = tuple(layer.replace("blocks.1.", "blocks.2.") for layer in LAYERS)
    layers = tuple(layer.replace("blocks.0.a", "blocks.1.a") for layer in layers)
    record = build_record()
    maps = {layer.replace("blocks.0.a", "blocks.1.a"): m for layer, m in record.token_maps.items()}
    renamed = dataclasses.replace(record, layers=layers, token_maps=maps)
    assert torch.equal(BrightEnding()(renamed), BrightEnding()(record))


def test_smaller_mask_is_enlarged_to_the_latent():
    small = record_of([[[0.2, 0.6]]] * 2, [[[1.0, 1.0, 1.0, 1.0]]])
    large = record_of([[[0.2, 0.3, 0.5, 0.6]]] * 2, [[[1.0, 1.0, 1.0, 1.0]]])
    torch.testing.assert_close(BrightEnding()(small), BrightEnding()(large))
    assert BrightEnding().mask(small).shape == (1, 1, 2)


def test_layers_asked_for_make_the_mask():
    record = build_record()
    chosen = BrightEnding(layers=(LAYERS[1],))
    torch.testing.assert_close(chosen.mask(record), record.token_maps[LAYERS[1]])


def test_missing_map_is_refused_with_how_to_record_it():
    wanted = (LAYERS[2],)
    with pytest.raises(RecordError, match=r"got maps of .*record it with .*map_layers=\('down"):
        BrightEnding(layers=wanted)(build_record())


def test_unknown_layer_is_refused():
    with pytest.raises(RecordError, match="got layer 'elsewhere', expected"):
        BrightEnding(layers=("elsewhere",))(build_record())


def test_model_without_down_blocks_is_refused():
    record = dataclasses.replace(build_record(), layers=tuple(f"blocks.{n}" for n in range(6)))
    with pytest.raises(
        RecordError, match=r"looks at down_blocks.* by default: got layers blocks.0"
    ):
        BrightEnding()(record)


def test_maps_of_different_sizes_are_refused():
    record = build_record()
    maps = {**record.token_maps, LAYERS[1]: torch.ones(3, 4, 4)}
    with pytest.raises(RecordError, match=r"maps of one size: got \[\(4, 4\), \(8, 8\)\]"):
        BrightEnding()(dataclasses.replace(record, token_maps=maps))


def test_maps_of_another_token_are_refused():
    record = dataclasses.replace(build_record(), map_tokens=torch.tensor([3, 1, 3]))
    with pytest.raises(RecordError, match=r"tokens \[3, 1, 3\], expected \[3, 3, 3\]"):
        BrightEnding()(record)


def test_stopped_run_is_refused_even_for_its_first_call():
    record = dataclasses.replace(build_record(calls=5), scheduled_calls=50)
    with pytest.raises(RecordError, match="whole run: got a record of the first 5 of 50"):
        BrightEnding(calls="first")(record)


def test_dark_mask_is_refused_not_divided_by():
    record = build_record()
    maps = {
        layer: m * torch.tensor([1, 0, 1])[:, None, None] for layer, m in record.token_maps.items()
    }
    with pytest.raises(RecordError, match=r"it is 0 in samples \[1\]"):
        BrightEnding()(dataclasses.replace(record, token_maps=maps))


def test_empty_layers_are_refused():
    with pytest.raises(ValueError, match=r"got layers=\(\), expected at least one"):
        BrightEnding(layers=())

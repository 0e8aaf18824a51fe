import copy
import dataclasses
import os

import pytest
import torch
from safetensors.torch import save_file

from memattn.errors import RecordError, RecordingError
from memattn.records import Record
from tests.records import LAYERS, build_record

CALLS, SAMPLES, TOKENS = 5, 3, 9


@pytest.fixture
def record():
    return build_record(calls=CALLS, tokens=TOKENS)


def same(left, right):
    """Whether two records hold the same, field by field."""
    for field in dataclasses.fields(Record):
        ours, theirs = getattr(left, field.name), getattr(right, field.name)
        if isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs), field.name
        elif isinstance(ours, dict):
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        else:
            assert ours == theirs, field.name
    return True


def test_blank_record_says_when_it_is_filled():
    blank = Record.__new__(Record)
    with pytest.raises(RecordingError, match="filled when the with block ends"):
        _ = blank.gap_squared
    with pytest.raises(RecordingError, match="filled"):
        blank.require("token_mass")
    with pytest.raises(AttributeError, match="no attribute 'mass'"):
        _ = blank.mass
    assert repr(blank) == "Record(not filled yet)"


def test_record_is_frozen(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.layers = ()


def test_record_says_its_sizes(record):
    assert (record.samples, record.calls, record.tokens) == (SAMPLES, CALLS, TOKENS)
    assert repr(record).startswith(f"Record(calls={CALLS}, layers={len(LAYERS)}")
    assert same(copy.deepcopy(record), record)


def test_require_says_how_to_record_what_is_missing(record):
    assert record.require("token_mass") is record.token_mass
    without = dataclasses.replace(record, token_mass=None, gap_squared=None)
    with pytest.raises(RecordError, match=r"no token_mass; .*fields=\('token_mass',\)"):
        without.require("token_mass")
    with pytest.raises(RecordError, match="guided run"):
        without.gap()
    with pytest.raises(RecordError, match="heads=True"):
        without.require("head_entropy")
    with pytest.raises(ValueError, match="expected a field of Record"):
        without.require("attention_mass")


def test_layer_is_found_by_name_and_by_index(record):
    assert record.layer_index(LAYERS[2]) == record.layer_index(2) == 2
    assert record.layer_index(-1) == len(LAYERS) - 1
    for wrong in (len(LAYERS), "attn2"):
        with pytest.raises(RecordError, match=r"down_blocks\.0"):
            record.layer_index(wrong)


def test_mean_attention_weighs_layers_by_their_heads(record):
    unequal = dataclasses.replace(record, layer_heads=(1, 2, 3, 4, 5, 6))
    expected = torch.zeros(CALLS, SAMPLES, TOKENS)
    for layer, heads in enumerate(unequal.layer_heads):
        per_query = unequal.token_mass[:, layer] / unequal.layer_queries[layer]
        expected += heads / 21 * per_query
    torch.testing.assert_close(unequal.mean_attention(), expected)
    torch.testing.assert_close(record.attention().sum(-1), torch.ones(CALLS, len(LAYERS), SAMPLES))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_gap_converts_as_the_predictions_themselves_do(record, prediction_type):
    """Converts two outputs at one noisy latent by the definitions, and compares the gaps."""
    generator = torch.Generator().manual_seed(1)
    two = torch.randn(2, CALLS, SAMPLES, 4, 3, 3, generator=generator, dtype=torch.float64)
    latent = torch.randn(CALLS, SAMPLES, 4, 3, 3, generator=generator, dtype=torch.float64)
    sigma = record.sigmas.double()[:, None, None, None, None]
    alpha, s = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
    if prediction_type == "epsilon":
        epsilon, x0 = two, (latent - s * two) / alpha
    elif prediction_type == "v_prediction":
        epsilon, x0 = alpha * two + s * latent, alpha * latent - s * two
    else:
        epsilon, x0 = (latent - alpha * two) / s, two

    def squared(pair):
        return (pair[1] - pair[0]).square().sum(2).float()

    record = dataclasses.replace(record, gap_squared=squared(two), prediction_type=prediction_type)
    torch.testing.assert_close(record.gap(), squared(two))
    torch.testing.assert_close(record.gap("epsilon"), squared(epsilon), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(record.gap("x0"), squared(x0), rtol=1e-4, atol=1e-5)


def test_gap_survives_an_infinite_noise_level(record):
    sigmas = torch.full((CALLS,), float("inf"))
    at_noise = dataclasses.replace(record, sigmas=sigmas, prediction_type="v_prediction")
    assert torch.equal(at_noise.gap("x0"), record.gap_squared)
    assert (at_noise.gap("epsilon") == 0).all()


def test_gap_that_cannot_be_converted_is_refused(record):
    with pytest.raises(ValueError, match="expected 'output', 'epsilon' or 'x0'"):
        record.gap("noise")
    unknown = dataclasses.replace(record, prediction_type="unknown")
    with pytest.raises(RecordError, match="prediction type 'unknown'"):
        unknown.gap("epsilon")
    unscheduled = dataclasses.replace(record, sigmas=torch.full((CALLS,), torch.nan))
    with pytest.raises(RecordError, match="no noise levels"):
        unscheduled.gap("x0")
    assert torch.equal(unscheduled.gap("epsilon"), record.gap_squared)


def test_file_gives_back_the_record(record, tmp_path):
    path = tmp_path / "run.safetensors"
    record.save(path)
    assert same(Record.load(path), record)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]
    bare = dataclasses.replace(record, token_maps=None, map_tokens=None, scheduled_calls=None)
    bare.save(path)
    assert same(Record.load(path), bare)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_file_has_the_permissions_the_umask_leaves(record, tmp_path, umask):
    before = os.umask(umask)
    try:
        record.save(tmp_path / "run.safetensors")
    finally:
        os.umask(before)
    assert (tmp_path / "run.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_file_that_is_no_record_is_answered_in_one_sentence(record, tmp_path):
    path = tmp_path / "run.safetensors"
    with pytest.raises(RecordError, match="no such file"):
        Record.load(path)
    record.save(path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a record at all"):
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match="expected a record file"):
            Record.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(RecordError, match="format none"):
        Record.load(path)


@pytest.mark.parametrize(
    ("field", "shape"),
    [("entropy", (CALLS, 2, SAMPLES)), ("gap_squared", (CALLS, 2, 3, 3)), ("sigmas", (2,))],
)
def test_file_whose_tensors_contradict_each_other_is_refused(record, tmp_path, field, shape):
    path = tmp_path / "run.safetensors"
    dataclasses.replace(record, **{field: torch.zeros(shape)}).save(path)
    with pytest.raises(RecordError, match=f"{field} has the wrong shape"):
        Record.load(path)


def test_record_that_cannot_be_written_leaves_nothing_behind(record, tmp_path):
    with pytest.raises(RecordError, match="cannot write"):
        record.save(tmp_path / "missing" / "run.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordError, match="cannot write"):
        record.save(tmp_path / "folder")
    assert [file.name for file in tmp_path.iterdir()] == ["folder"]


def test_concatenation_of_selections_is_the_record(record):
    parts = [record.select([0]), record.select(torch.tensor([1, -1]))]
    assert same(Record.concatenate(parts), record)
    assert same(Record.concatenate([record]), record)


def test_records_of_different_runs_are_not_concatenated(record):
    others = {
        "at least one": [],
        "layer_heads differ": [record, dataclasses.replace(record, layer_heads=(1,) * 6)],
        "timesteps differ": [record, record.truncate(2)],
        "only some hold entropy": [record, dataclasses.replace(record, entropy=None)],
        "token_mass differ in shape": [record, build_record(calls=CALLS, tokens=TOKENS + 1)],
    }
    entropy = torch.zeros(CALLS, len(LAYERS), SAMPLES)
    others["only some hold entropy"][0] = dataclasses.replace(record, entropy=entropy)
    for sentence, records in others.items():
        with pytest.raises(RecordError, match=sentence):
            Record.concatenate(records)


def test_selection_out_of_range_is_refused(record):
    with pytest.raises(RecordError, match="expected indices below 3"):
        record.select([3])


def test_truncated_record_holds_the_first_calls(record):
    first = record.truncate(2)
    assert first.calls == 2
    assert first.scheduled_calls == record.scheduled_calls
    assert torch.equal(first.token_mass, record.token_mass[:2])
    assert torch.equal(first.gap_squared, record.gap_squared[:2])
    assert first.token_maps is None
    assert record.truncate(CALLS) is record
    for calls in (0, CALLS + 1):
        with pytest.raises(RecordError, match="expected 1 to 5"):
            record.truncate(calls)

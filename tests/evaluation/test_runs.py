"""Whole runs on the testbed's pipeline: batches that are kept, and what a killed run goes on to."""

import dataclasses

import numpy as np
import pytest
import torch

from memattn import testbed
from memattn.detectors import DETECTORS, BrightEnding, LayerEntropy, NoiseMagnitude
from memattn.detectors.base import Localiser
from memattn.errors import InputError, RecordError
from memattn.evaluation.cases import Case
from memattn.evaluation.runs import run_cases
from memattn.evaluation.sampling import sample
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.traces import trace
from memattn.evaluation.weights import model_hash
from memattn.records import Record

SETTINGS = RunSettings(steps=2)
CASES = tuple(
    Case(prompt, seed, "ordinary", "ordinary")
    for seed, prompt in enumerate(
        ["a red disc", "a blue moon, by norik", "a leaf", "two discs", "x"]
    )
)
BATCHES = (2, 2, 1)


@pytest.fixture(scope="module")
def pipe():
    return testbed.load_pipeline()


def run(pipe, store=None, *, cases=CASES, detectors=DETECTORS, settings=SETTINGS, **options):
    options = {"batch_size": 2, "label": "model", **options}
    return run_cases(pipe, cases, detectors, settings, store=store, **options)


@pytest.fixture(scope="module")
def whole(pipe):
    return run(pipe)


class Killed(BaseException):
    """What no handler of errors may stop."""


def kill_at_call(pipe, number):
    calls = iter(range(number))

    def count(*_):
        if next(calls, None) is None:
            raise Killed

    return pipe.unet.register_forward_pre_hook(count)


def same(one, other):
    """Whether two runs agree in every bit."""
    assert list(one.scores) == list(other.scores)
    assert list(one.masks) == list(other.masks)
    for part in ("scores", "masks"):
        for name, values in getattr(one, part).items():
            assert torch.equal(values, getattr(other, part)[name])
    for first, second in zip(one.images, other.images, strict=True):
        assert np.array_equal(first, second)
    for name, tensor in one.traces.tensors().items():
        assert torch.equal(tensor, other.traces.tensors()[name])
    assert torch.equal(one.attention, other.attention)
    assert (one.calls, one.unreadable) == (other.calls, other.unreadable)
    return True


def test_a_run_holds_what_its_record_gives(pipe, whole):
    batches = [
        sample(
            pipe,
            [case.prompt for case in part],
            seeds=[case.seed for case in part],
            settings=SETTINGS,
        )
        for part in (CASES[start : start + 2] for start in range(0, len(CASES), 2))
    ]
    record = Record.concatenate([batch.record for batch in batches])
    for detector in DETECTORS:
        assert torch.equal(whole.scores[detector.name], detector(record))
    assert list(whole.masks) == ["BrightEnding"]
    assert torch.equal(whole.masks["BrightEnding"], BrightEnding().mask(record))
    for name, tensor in trace(record).tensors().items():
        assert torch.equal(whole.traces.tensors()[name], tensor)
    images = np.concatenate([batch.images for batch in batches])
    assert np.array_equal(np.stack(whole.images), images)
    assert torch.equal(whole.attention, record.mean_attention().mean(dim=0))
    assert (whole.calls, whole.unreadable) == (2, {})


@pytest.mark.parametrize("calls", [3, 5])
def test_a_killed_run_goes_on_and_gives_the_same_bits(pipe, whole, tmp_path, capfd, calls):
    store = tmp_path / "store"
    handle = kill_at_call(pipe, calls)
    with pytest.raises(Killed):
        run(pipe, store)
    handle.remove()
    kept = calls // SETTINGS.steps
    assert len(list(store.iterdir())) == kept
    capfd.readouterr()
    made = []
    handle = pipe.unet.register_forward_hook(lambda *_: made.append(1))
    assert same(run(pipe, store), whole)
    handle.remove()
    assert len(made) == SETTINGS.steps * (len(BATCHES) - kept)
    assert f"{sum(BATCHES[:kept])} of 5 were there already" in capfd.readouterr().err
    assert same(run(pipe, store), whole)  # from the files alone


def test_the_bar_counts_images_with_those_already_there(pipe, tmp_path, capfd):
    run(pipe, tmp_path / "store", label="first")
    assert "5/5" in capfd.readouterr().err
    (tmp_path / "store" / "batch-00001.safetensors").unlink()
    run(pipe, tmp_path / "store", label="again")
    err = capfd.readouterr().err
    assert "again" in err
    assert "3/5" in err
    assert "5/5" in err


def test_the_bar_ends_full(pipe, capfd):
    run(pipe, settings=RunSettings(steps=9), batch_size=5, label="full")
    last = capfd.readouterr().err.rstrip().rpartition("full:")[2]
    assert "100%|██████████| 5/5" in last


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"settings": RunSettings(steps=2, guidance_scale=5.0)}, "settings"),
        ({"cases": CASES[::-1]}, "prompts or seeds"),
        ({"cases": (*CASES[:4], dataclasses.replace(CASES[4], seed=9))}, "prompts or seeds"),
        ({"detectors": (NoiseMagnitude(),)}, "detectors"),
        ({"batch_size": 1}, "batch size"),
        ({"images": False}, "images or autoencoder"),
    ],
)
def test_a_store_of_other_work_is_refused(pipe, kept_store, change, what):
    with pytest.raises(InputError, match=rf"of other {what} than asked for; start it the same way"):
        run(pipe, kept_store, **change)


@pytest.fixture(scope="module")
def kept_store(pipe, tmp_path_factory):
    store = tmp_path_factory.mktemp("kept") / "store"
    run(pipe, store)
    return store


def test_a_store_of_another_model_is_refused(pipe, kept_store):
    bias = pipe.unet.conv_out.bias
    before = bias.data.clone()
    bias.data += 1
    with pytest.raises(InputError, match="of other model than asked for"):
        run(pipe, kept_store)
    bias.data.copy_(before)


def test_a_store_with_images_by_another_autoencoder_is_refused(pipe, kept_store, tmp_path):
    run(pipe, tmp_path, images=False)
    bias = pipe.vae.decoder.conv_out.bias
    before = bias.data.clone()
    bias.data += 1
    with pytest.raises(InputError, match="of other images or autoencoder than asked for"):
        run(pipe, kept_store)
    assert run(pipe, tmp_path, images=False).images == ()  # it has no part in scores
    bias.data.copy_(before)


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "foreign", "other batch"])
def test_a_damaged_file_is_refused_in_one_sentence(pipe, kept_store, tmp_path, damage):
    from safetensors.torch import save_file

    content = {path.name: path.read_bytes() for path in kept_store.iterdir()}
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    path = tmp_path / "batch-00001.safetensors"
    if damage == "foreign":
        save_file({"images": torch.zeros(2, 3)}, path)
    else:
        path.write_bytes(
            {
                "cut": content[path.name][:-8],
                "text": b"not a tensor in sight",
                "empty": b"",
                "other batch": content["batch-00002.safetensors"],
            }[damage]
        )
    with pytest.raises(InputError, match="which is no batch of unfinished work") as error:
        run(pipe, tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_detector_that_cannot_read_the_model_is_left_out_and_named_once(pipe, tmp_path, capfd):
    detectors = (LayerEntropy(layer=99), NoiseMagnitude())
    for _ in range(2):  # the second time from the files
        runs = run(pipe, tmp_path / "store", detectors=detectors)
        assert list(runs.scores) == ["NoiseMagnitude"]
        assert list(runs.unreadable) == ["LayerEntropy(layer=99)"]
        err = capfd.readouterr().err
        assert err.count("LayerEntropy(layer=99) cannot read this model: got layer 99") == 1


def test_the_device_is_part_of_the_work(pipe, kept_store, monkeypatch):
    monkeypatch.setattr(type(pipe), "device", torch.device("cuda", 1))
    with pytest.raises(InputError, match="of other device than asked for"):
        run(pipe, kept_store)


def test_a_model_that_no_detector_can_read_is_refused(pipe):
    with pytest.raises(RecordError, match="no detector can read this model"):
        run(pipe, detectors=(LayerEntropy(layer=99),))


def test_without_images_there_are_the_same_scores_and_masks(pipe, whole):
    decoded = []
    handle = pipe.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    runs = run(pipe, images=False)
    handle.remove()
    assert decoded == []
    assert (runs.images, runs.traces, runs.attention) == ((), None, None)
    for name, scores in whole.scores.items():
        assert torch.equal(runs.scores[name], scores)
    assert torch.equal(runs.masks["BrightEnding"], whole.masks["BrightEnding"])


def test_localisers_are_known_by_their_mask():
    found = [detector.name for detector in DETECTORS if isinstance(detector, Localiser)]
    assert found == ["BrightEnding"]


def test_a_hash_that_is_known_is_not_computed_again(pipe, kept_store, whole):
    assert same(run(pipe, kept_store, model=model_hash(pipe)), whole)
    with pytest.raises(InputError, match="of other model than asked for"):
        run(pipe, kept_store, model="0" * 64)


@pytest.mark.parametrize(
    ("change", "sentence"), [({"cases": ()}, "got no cases"), ({"batch_size": 0}, "batch_size=0")]
)
def test_impossible_requests_are_refused(pipe, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(pipe, **change)

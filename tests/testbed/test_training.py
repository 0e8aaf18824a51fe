from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import nn

from memattn.errors import TestbedError
from memattn.testbed import Recipe
from memattn.testbed.attributes import AttributeClassifier
from memattn.testbed.training import loop, publication, publish, train
from memattn.testbed.truth import copy_thresholds

TINY = Recipe(
    verbatim=2,
    template=2,
    ladder=(1, 3),
    ladder_captions=1,
    seen_once=1,
    ordinary=4,
    ordinary_scenes=12,
    template_variants=2,
    vae_steps=2,
    text_steps=2,
    unet_steps=20,
    vae_batch=2,
    text_batch=4,
    unet_batch=2,
)


def regression(stop_at=None):
    """A small least-squares stage whose data are a function of the step."""
    torch.manual_seed(0)
    module = nn.Linear(4, 2)

    def loss(step, part):
        if step == stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(8, 4, generator=loop.generator(0, 9, step))[part::2]
        return (module(inputs) - inputs[:, :2]).square().mean() / 2

    return loop.Stage("regression", module, loss, steps=10, rate=0.1, parts=2, ema_decay=0.9)


def test_interrupted_training_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 3)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    expected = regression()
    loop.run(expected, whole)

    with pytest.raises(KeyboardInterrupt):
        loop.run(regression(stop_at=7), resumed)
    stage = regression()
    seen = []
    first_loss = stage.loss
    object.__setattr__(
        stage, "loss", lambda step, part: seen.append(step) or first_loss(step, part)
    )
    loop.run(stage, resumed)

    assert sorted(set(seen)) == [6, 7, 8, 9]
    assert torch.equal(stage.module.weight, expected.module.weight)
    assert torch.equal(stage.module.bias, expected.module.bias)


def test_finished_stage_is_not_trained_again(tmp_path):
    loop.run(regression(), tmp_path)
    again = regression(stop_at=0)
    loop.run(again, tmp_path)
    assert not again.module.weight.requires_grad


def test_averaged_weights_are_the_ones_left(tmp_path):
    stage = regression()
    loop.run(stage, tmp_path)
    state = torch.load(tmp_path / "regression.pt", weights_only=True)
    assert torch.equal(stage.module.weight, state["ema"]["shadow_params"][0])
    assert not torch.equal(stage.module.weight, state["module"]["weight"])


def test_interrupted_testbed_resumes_exactly(tmp_path, monkeypatch):
    """Every stage is interrupted once; the denoiser ends up the same bit for bit."""
    monkeypatch.setattr(loop, "_CHECKPOINT_EVERY", 1)
    expected = train(tmp_path / "whole", TINY).unet.state_dict()
    interrupted = tmp_path / "interrupted"
    save = loop._save
    for stage, step in (("autoencoder", 1), ("text-tower", 1), ("denoiser", 11)):

        def interrupting(path, done, *state, stage=stage, step=step):
            save(path, done, *state)
            if path.stem == stage and done == step:
                raise KeyboardInterrupt

        monkeypatch.setattr(loop, "_save", interrupting)
        with pytest.raises(KeyboardInterrupt):
            train(interrupted, TINY)
    monkeypatch.setattr(loop, "_save", save)
    resumed = train(interrupted, TINY).unet.state_dict()
    assert all(torch.equal(resumed[name], expected[name]) for name in expected)


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    loop.run(regression(), tmp_path)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_interrupted_publication_leaves_the_earlier_testbed(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "manifest.json").write_text("earlier", encoding="utf-8")

    def interrupted(pipeline, manifest):
        raise KeyboardInterrupt

    monkeypatch.setattr(publication, "verify", interrupted)
    monkeypatch.setattr(publication, "copy_thresholds", lambda: copy_thresholds(pairs=20))
    with pytest.raises(KeyboardInterrupt):
        publish(train(tmp_path, TINY), (AttributeClassifier(), {}), TINY, "command", data)
    assert (data / "manifest.json").read_text(encoding="utf-8") == "earlier"


def test_train_builds_a_pipeline_that_paints(tmp_path):
    pipeline = train(tmp_path, TINY)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("red disc and blue moon, print by a b", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    cross = [name for name in pipeline.unet.attn_processors if ".attn2." in name]
    assert len(cross) == 16

    with pytest.raises(TestbedError, match="unet_steps = 20, expected 30"):
        train(tmp_path, replace(TINY, unet_steps=30))


def test_permutations_and_the_control_take_over_the_first_stages(tmp_path, monkeypatch):
    first, second, control = (tmp_path / name for name in ("first", "second", "control"))
    expected = train(first, TINY)
    permuted = replace(TINY, permutation=1)
    alone = train(tmp_path / "alone", permuted).unet.state_dict()

    def no_more_steps(path, *state):
        assert path.stem == "denoiser", f"{path.stem} was trained again"

    monkeypatch.setattr(loop, "_save", no_more_steps)
    pipeline = train(second, permuted, towers=first)
    assert all(torch.equal(pipeline.unet.state_dict()[name], alone[name]) for name in alone)
    train(control, TINY.without_duplicates(), towers=first)

    taken, before = pipeline.vae.state_dict(), expected.vae.state_dict()
    assert all(torch.equal(taken[name], before[name]) for name in before)
    with pytest.raises(TestbedError, match="ordinary_scenes = 12, expected 13"):
        train(tmp_path / "other", replace(TINY, ordinary_scenes=13), towers=first)
    with pytest.raises(TestbedError, match="holds no training"):
        train(tmp_path / "another", TINY, towers=tmp_path / "nowhere")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_on_a_gpu_sees_the_same_pictures_and_noise(tmp_path):
    """One step of each stage; what differs from the CPU is rounding."""
    once = replace(TINY, vae_steps=1, text_steps=1, unet_steps=10)
    ours = train(tmp_path / "cuda", once, device="cuda").unet.state_dict()
    expected = train(tmp_path / "cpu", once).unet.state_dict()
    for name, weights in expected.items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=10 * once.unet_rate)

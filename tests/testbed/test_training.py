import pytest
import torch
from torch import nn

from memattn.errors import TestbedError
from memattn.testbed import Recipe
from memattn.testbed.training import loop, train

TINY = Recipe(
    verbatim=2,
    template=2,
    seen_once=1,
    ordinary=4,
    ordinary_scenes=12,
    template_variants=2,
    vae_steps=2,
    text_steps=2,
    unet_steps=20,
    vae_batch=2,
    text_batch=4,
    unet_batch=1,
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


def test_train_builds_a_pipeline_that_paints(tmp_path):
    pipeline = train(tmp_path, TINY)
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("red disc and blue moon, print by a b", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    cross = [name for name in pipeline.unet.attn_processors if ".attn2." in name]
    assert len(cross) == 16

    with pytest.raises(TestbedError, match="unet_steps = 20, expected 30"):
        train(tmp_path, Recipe(**{**vars(TINY), "unet_steps": 30}))

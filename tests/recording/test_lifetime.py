"""What recording leaves behind when things go wrong, or go on for long."""

import copy

import pytest
import torch
from diffusers import StableDiffusionPipeline

from memattn.errors import RecordingError
from memattn.recording import record
from memattn.recording.hooks import CallHooks
from tests import pipelines

PROMPTS = ["a red fox", "the lazy dog by the sea"]
CALL = {"num_inference_steps": 3, "output_type": "latent"}


@pytest.fixture
def pipe(tmp_path):
    return pipelines.stable_diffusion(tmp_path)


@pytest.fixture
def attached(pipe):
    recorder = record(pipe, fields=("token_mass", "gap_squared"))
    recorder.attach()
    yield recorder
    recorder.detach()


def run(pipe, **call):
    return pipe(PROMPTS, generator=pipelines.generators(2), **{**CALL, **call}).images


def fail(*_):
    raise KeyError("interrupted")


def test_attach_that_fails_half_way_leaves_nothing_behind(pipe, monkeypatch):
    before = pipe.unet.attn_processors

    def refuse(*_):
        raise RuntimeError("refused")

    recorder = record(pipe)
    monkeypatch.setattr(recorder._listener, "attach", refuse)
    with pytest.raises(RuntimeError, match="refused"), recorder:
        pass
    assert pipe.unet.attn_processors == before
    assert not pipe.unet._forward_hooks
    with record(pipe) as recorded:
        run(pipe)
    assert recorded.calls == 3


def test_pipeline_without_encode_prompt_is_refused_before_anything_is_touched(pipe):
    pipe.encode_prompt = None
    with pytest.raises(RecordingError, match="expected a pipeline with encode_prompt"):
        record(pipe)


def test_everything_else_is_restored_when_the_prompt_wrapper_is_gone(pipe):
    before = pipe.unet.attn_processors
    with record(pipe):
        run(pipe)
        del pipe.encode_prompt
    assert pipe.unet.attn_processors == before
    assert not pipe.unet._forward_hooks


def test_compiled_call_that_somebody_wrapped_meanwhile_stays_and_is_no_longer_watched():
    seen = []
    module = torch.nn.Identity()
    module._compiled_call_impl = module.forward
    hooks = CallHooks(module, lambda *_: seen.append("before"), lambda *_: seen.append("after"))
    ours = module._compiled_call_impl
    module._compiled_call_impl = theirs = lambda *args: ours(*args)
    assert module(1) == 1
    hooks.remove()
    assert module._compiled_call_impl is theirs
    assert module(1) == 1
    assert seen == ["before", "after"]


def test_long_lived_recorder_hands_out_one_record_per_run(pipe):
    recorder = record(pipe)
    recorder.attach()
    try:
        run(pipe)
        first = recorder.take()
        pipe(PROMPTS[0], generator=pipelines.generators(1), **CALL)
        second = recorder.take()
    finally:
        recorder.detach()
    assert (first.samples, second.samples) == (2, 1)
    with pytest.raises(RecordingError, match="was not called"):
        recorder.take()


def test_attach_twice_is_refused(pipe):
    recorder = record(pipe)
    recorder.attach()
    try:
        with pytest.raises(RecordingError, match="already"):
            recorder.attach()
    finally:
        recorder.detach()


def test_failed_run_does_not_block_a_long_lived_recorder(pipe, attached):
    with pytest.raises(KeyError):
        run(pipe, callback_on_step_end=fail)
    run(pipe)
    assert attached.take().calls == 3


def test_statistics_of_a_call_that_did_not_end_are_never_taken(pipe, attached):
    name, processor = next(iter(attached._recordings.items()))
    handle = pipe.unet.conv_out.register_forward_hook(fail)
    with pytest.raises(KeyError):
        run(pipe)
    handle.remove()
    assert processor.statistics is not None
    pipe.unet.get_submodule(name).set_processor(processor.original)
    with pytest.raises(RecordingError, match=f"no statistics at {name}"):
        run(pipe)


def test_run_can_be_taken_after_detaching(pipe):
    recorder = record(pipe)
    recorder.attach()
    run(pipe)
    recorder.detach()
    assert recorder.take().calls == 3


def test_noise_levels_are_those_of_the_run_whatever_the_scheduler_does_next(pipe):
    with record(pipe, fields=("gap_squared",)) as expected:
        run(pipe)
    with record(pipe, fields=("gap_squared",)) as recorded:
        run(pipe)
        other = {"prediction_type": "v_prediction", "beta_end": 0.5}
        pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **other)
    assert torch.equal(recorded.sigmas, expected.sigmas)
    assert recorded.prediction_type == "epsilon"


def test_another_pipeline_that_shares_the_denoiser_is_refused(pipe):
    parts = {name: getattr(pipe, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    other = StableDiffusionPipeline(
        **parts,
        scheduler=copy.deepcopy(pipe.scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    with pytest.raises(RecordingError, match="not by the pipeline being recorded"), record(pipe):
        run(other)


def test_guidance_switched_off_in_a_run_is_refused_with_the_call(pipe):
    def switch_off(pipe, step, timestep, tensors):
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[1]}

    with (
        pytest.raises(RecordingError, match="guidance was switched off at call 1"),
        record(pipe),
    ):
        run(
            pipe,
            callback_on_step_end=switch_off,
            callback_on_step_end_tensor_inputs=["prompt_embeds"],
        )


def test_layer_whose_rows_are_not_the_samples_is_refused_by_name(pipe):
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    layer = pipe.unet.get_submodule(name)
    forward = layer.forward

    def over_frames(hidden_states, encoder_hidden_states, **kwargs):
        twice = (hidden_states.repeat(2, 1, 1), encoder_hidden_states.repeat(2, 1, 1))
        return forward(*twice, **kwargs).chunk(2)[0]

    layer.forward = over_frames
    with (
        pytest.raises(RecordingError, match=f"over 8 rows at {name}, expected the 4"),
        record(pipe),
    ):
        run(pipe)


def test_denoiser_of_videos_is_refused():
    class Video(torch.nn.Module):
        def forward(self, sample, timestep, encoder_hidden_states):
            return sample[:, :, None]

    unet = pipelines.tiny_unet()
    video = Video()
    video.down_blocks = unet.down_blocks
    inputs = torch.zeros(2, 4, 8, 8), 1, torch.zeros(2, 16, 16)
    recorder = record(video, layout="unconditional+conditional", fields=("gap_squared",))
    with pytest.raises(RecordingError, match=r"expected \[rows, C, h, w\]"), recorder:
        video(*inputs)


@pytest.mark.parametrize("first", [True, False])
def test_runs_inside_and_outside_of_inference_mode_follow_each_other(pipe, first):
    recorder = record(pipe)
    recorder.attach()
    try:
        for mode in (first, not first):
            with torch.inference_mode(mode):
                run(pipe)
            assert recorder.take().token_maps
    finally:
        recorder.detach()

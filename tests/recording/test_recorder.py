import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

import memattn
from memattn.errors import RecordingError
from memattn.recording import record
from memattn.records import FIELDS
from tests import pipelines

PROMPTS = ["a red fox", "the lazy dog by the sea"]
CALL = {"num_inference_steps": 3, "output_type": "pt"}
ATTENTION_ONLY = {"layout": "conditional", "fields": ("token_mass",)}
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture
def pipe(tmp_path):
    return pipelines.stable_diffusion(tmp_path)


def run(pipe, **call):
    return pipe(PROMPTS, generator=pipelines.generators(2), **{**CALL, **call}).images


# diffusers' Euler and Heun schedulers hand torch tensors to np.array
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("scheduler", "calls"),
    [(None, 3), (PNDMScheduler, 4), (EulerDiscreteScheduler, 3), (HeunDiscreteScheduler, 5)],
)
def test_image_is_the_stock_image_and_every_call_is_recorded(pipe, scheduler, calls):
    if scheduler is not None:
        skip = {"skip_prk_steps": True} if scheduler is PNDMScheduler else {}
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **skip)
    stock = run(pipe)
    with record(pipe) as recorded:
        images = run(pipe)
    torch.testing.assert_close(images, stock, rtol=0, atol=1e-4)
    assert recorded.calls == recorded.scheduled_calls == calls
    assert torch.equal(recorded.timesteps, pipe.scheduler.timesteps.float())
    assert not recorded.sigmas.isnan().any()
    assert not recorded.token_mass.isnan().any()


def test_originals_come_back_and_self_attention_is_never_touched(pipe):
    before = pipe.unet.attn_processors
    with record(pipe):
        during = pipe.unet.attn_processors
        run(pipe)
    assert pipe.unet.attn_processors == before
    assert "encode_prompt" not in pipe.__dict__
    assert not pipe.unet._forward_hooks
    assert not pipe.unet._forward_pre_hooks
    changed = {name for name in before if before[name] is not during[name]}
    assert changed == {name for name in before if ".attn2." in name}


def test_exception_restores_everything_and_leaves_the_record_unfilled(pipe):
    before = pipe.unet.attn_processors

    def fail(*_):
        raise KeyError("interrupted")

    with pytest.raises(KeyError), record(pipe) as recorded:
        run(pipe, callback_on_step_end=fail)
    assert pipe.unet.attn_processors == before
    assert not pipe.unet._forward_hooks
    with pytest.raises(RecordingError, match="filled when the with block ends"):
        _ = recorded.token_mass
    with record(pipe) as recorded:
        run(pipe)
    assert recorded.calls == 3


def test_record_cannot_be_read_inside_the_block(pipe):
    with record(pipe) as recorded:
        run(pipe)
        with pytest.raises(RecordingError, match="filled when the with block ends"):
            _ = recorded.token_mass
    assert recorded.token_mass is not None


def test_second_run_in_one_block_is_refused(pipe):
    def run_twice():
        with record(pipe):
            run(pipe)
            run(pipe)

    with pytest.raises(RecordingError, match=r"Record\.concatenate"):
        run_twice()


def test_block_without_a_run_is_refused(pipe):
    with pytest.raises(RecordingError, match="was not called"), record(pipe):
        pass


def test_nested_recording_is_refused(pipe):
    before = pipe.unet.attn_processors
    with pytest.raises(RecordingError, match="already"), record(pipe), record(pipe):
        pass
    assert pipe.unet.attn_processors == before


@pytest.mark.parametrize("fields", [("gap_squared",), ("token_mass",), ("token_maps",)])
def test_only_what_is_asked_for_is_recorded(pipe, fields):
    with record(pipe, fields=fields) as recorded:
        during = pipe.unet.attn_processors
        run(pipe)
    held = [name for name in FIELDS if getattr(recorded, name) is not None]
    assert held == list(fields)
    replaced = sum(type(p).__name__ == "RecordingProcessor" for p in during.values())
    assert replaced == len(recorded.layers) == {"gap_squared": 0, "token_mass": 4}.get(fields[0], 1)
    assert recorded.samples == 2


def test_maps_alone_compute_no_other_statistics(pipe):
    left = []
    recorder = record(pipe, fields=("token_maps",))
    pipe.unet.conv_out.register_forward_pre_hook(
        lambda *_: left.append(recorder._recordings[FIRST].statistics)
    )
    with recorder:
        run(pipe)
    assert [statistics[:2] for statistics in left] == [(None, None)] * 3


def test_interrupted_run_keeps_its_calls_and_says_how_many_were_planned(pipe):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return tensors

    with record(pipe) as recorded:
        run(pipe, callback_on_step_end=stop)
    assert recorded.calls == 1
    assert recorded.scheduled_calls == 3


def test_first_call_of_a_run_is_what_truncation_gives(pipe):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return tensors

    with record(pipe) as stopped:
        run(pipe, callback_on_step_end=stop)
    with record(pipe) as whole:
        run(pipe)
    assert torch.equal(stopped.token_mass, whole.truncate(1).token_mass)
    assert torch.equal(stopped.gap_squared, whole.truncate(1).gap_squared)


def test_sample_does_not_depend_on_its_batch(pipe):
    with record(pipe) as both:
        run(pipe)
    with record(pipe) as one:
        pipe(PROMPTS[1], generator=pipelines.generators(2)[1], **CALL)
    torch.testing.assert_close(one.token_mass, both.select([1]).token_mass, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.gap_squared, both.select([1]).gap_squared, rtol=1e-3, atol=1e-6)


def test_embeddings_need_prompt_lengths_for_token_maps(pipe):
    embeddings, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
    call = {"prompt_embeds": embeddings, "negative_prompt_embeds": negative, **CALL}
    with pytest.raises(RecordingError, match="pass prompt_lengths="), record(pipe):
        pipe(**call)
    with record(pipe, prompt_lengths=[5, 8]) as recorded:
        pipe(**call, num_images_per_prompt=2)
    assert recorded.prompt_lengths.tolist() == [5, 5, 8, 8]
    assert recorded.map_tokens.tolist() == [4, 4, 7, 7]
    with record(pipe, fields=("token_mass",)) as recorded:
        pipe(**call)
    assert recorded.prompt_lengths is None


def test_wrong_number_of_prompt_lengths_is_refused(pipe):
    with (
        pytest.raises(RecordingError, match="expected 2 numbers"),
        record(pipe, prompt_lengths=[5, 8, 8]),
    ):
        run(pipe)


def test_token_can_be_chosen_per_sample(pipe):
    with record(pipe, token=[1, 2]) as chosen:
        run(pipe)
    with record(pipe, token=2) as same:
        run(pipe)
    assert chosen.map_tokens.tolist() == [1, 2]
    assert torch.equal(chosen.token_maps[FIRST][1], same.token_maps[FIRST][1])
    assert not torch.equal(chosen.token_maps[FIRST][0], same.token_maps[FIRST][0])


def test_token_beyond_the_text_is_refused(pipe):
    with pytest.raises(RecordingError, match="from 0 to 15"), record(pipe, token=16):
        run(pipe)


def test_odd_latent_sizes_give_maps_of_their_own_shape(pipe):
    with record(
        pipe, map_layers=[0, "mid_block.attentions.0.transformer_blocks.0.attn2"]
    ) as recorded:
        run(pipe, height=24, width=32)
    shapes = [tuple(token_map.shape) for token_map in recorded.token_maps.values()]
    assert shapes == [(2, 12, 16), (2, 6, 8)]


def test_bare_denoiser_is_recorded_with_its_layout(pipe):
    torch.manual_seed(0)
    sample, text = torch.randn(4, 4, 8, 8), torch.randn(4, 16, 16)
    with (
        torch.no_grad(),
        record(pipe.unet, layout="unconditional+conditional", prompt_lengths=[5, 8]) as guided,
    ):
        for t in (900, 500, 1):
            out = pipe.unet(sample, t, text).sample
    with (
        torch.no_grad(),
        record(
            pipe.unet,
            layout="conditional",
            prompt_lengths=[5, 8],
            fields=("token_mass", "token_maps"),
        ) as conditional,
    ):
        pipe.unet(sample[2:], torch.tensor(900), encoder_hidden_states=text[2:])
    assert guided.timesteps.tolist() == [900, 500, 1]
    assert guided.sigmas.isnan().all()
    assert guided.prediction_type == "unknown"
    assert guided.scheduled_calls is None
    gap = (out[2:] - out[:2]).square().sum(1)
    torch.testing.assert_close(guided.gap()[2], gap)
    torch.testing.assert_close(guided.token_mass[0], conditional.token_mass[0])
    assert conditional.samples == 2


def test_bare_denoiser_with_gradients_can_be_recorded(pipe):
    sample = torch.randn(2, 4, 8, 8, requires_grad=True)
    with record(pipe.unet, **ATTENTION_ONLY) as recorded:
        pipe.unet(sample, 1, torch.randn(2, 16, 16)).sample.sum().backward()
    assert not recorded.token_mass.requires_grad
    assert sample.grad is not None


def test_many_calls_without_a_scheduler_all_fit(pipe):
    with (
        torch.no_grad(),
        record(pipe.unet, **ATTENTION_ONLY) as recorded,
    ):
        for t in range(70):
            pipe.unet(torch.zeros(1, 4, 8, 8), t, torch.zeros(1, 16, 16))
    assert recorded.timesteps.tolist() == list(range(70))
    assert not recorded.token_mass.isnan().any()


def test_change_of_batch_within_a_recording_is_refused(pipe):
    def grow():
        with torch.no_grad(), record(pipe.unet, **ATTENTION_ONLY):
            for batch in (1, 2):
                pipe.unet(torch.zeros(batch, 4, 8, 8), 1, torch.zeros(batch, 16, 16))

    with pytest.raises(RecordingError, match="cannot change"):
        grow()


class Doubling:
    """An attention processor that does something of its own."""

    def __call__(self, attn, hidden_states, *args, **kwargs):
        return 2 * hidden_states


def test_custom_processor_is_refused_by_layer_and_class(pipe):
    processors = pipe.unet.attn_processors
    pipe.unet.set_attn_processor({**processors, f"{FIRST}.processor": Doubling()})
    with pytest.raises(RecordingError, match=f"Doubling at layer {FIRST}"), record(pipe):
        pass
    with record(pipe, fields=("gap_squared",)) as recorded:
        run(pipe)
    assert recorded.layers == ()


def test_fused_projections_are_refused(pipe):
    pipe.unet.fuse_qkv_projections()
    with pytest.raises(RecordingError, match="FusedAttnProcessor2_0"), record(pipe):
        pass


def test_processor_replaced_during_the_run_names_the_layer(pipe):
    def replace(pipe, step, timestep, tensors):
        pipe.unet.get_submodule(FIRST).set_processor(memattn.AttnProcessor())
        return tensors

    with pytest.raises(RecordingError, match=f"no statistics at {FIRST}:"), record(pipe):
        run(pipe, callback_on_step_end=replace)


def test_nan_is_refused_by_layer(pipe):
    bias = pipe.unet.get_submodule(f"{FIRST}.to_k").weight
    bias.data[0, 0] = float("nan")
    with (
        pytest.raises(RecordingError, match=f"nan at {FIRST}"),
        record(pipe, fields=("token_mass",)),
    ):
        run(pipe, output_type="latent")
    with (
        pytest.raises(RecordingError, match=r"nan in calls \[0, 1, 2\]"),
        record(pipe, fields=("gap_squared",)),
    ):
        run(pipe, output_type="latent")


@pytest.mark.parametrize("guarded", [False, True])
def test_sliced_and_memattn_processors_are_recorded(pipe, guarded):
    with record(pipe) as expected:
        run(pipe)
    if guarded:
        pipe.unet.set_attn_processor(memattn.AttnProcessor())
    else:
        pipe.unet.set_attention_slice(1)
    before = pipe.unet.attn_processors
    with record(pipe) as recorded:
        run(pipe)
    torch.testing.assert_close(recorded.token_mass, expected.token_mass)
    assert pipe.unet.attn_processors == before


def test_mask_over_text_is_recorded(pipe):
    keep = torch.ones(2, 16)
    keep[:, 9:] = 0
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 16, 16)
    with torch.no_grad(), record(pipe.unet, **ATTENTION_ONLY) as recorded:
        pipe.unet(sample, 1, text, encoder_attention_mask=keep)
    assert (recorded.token_mass[..., 9:] == 0).all()


def run_with_mask(pipe, mask):
    """One recorded call whose first layer gets `mask`: the output and the record."""
    # diffusers' own processors take no mask with four axes
    given = [mask.expand(-1, 2, -1, -1).flatten(0, 1) if mask.ndim == 4 else mask, mask]
    handle = pipe.unet.get_submodule(FIRST).register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "attention_mask": given.pop(0)}),
        with_kwargs=True,
    )
    torch.manual_seed(0)
    inputs = torch.randn(2, 4, 8, 8), 1, torch.randn(2, 16, 16)
    try:
        with torch.no_grad():
            expected = pipe.unet(*inputs).sample
            with record(pipe.unet, **ATTENTION_ONLY) as recorded:
                output = pipe.unet(*inputs).sample
    finally:
        handle.remove()
    torch.testing.assert_close(output, expected)
    return recorded


def test_mask_repeated_over_heads_or_queries_is_recorded(pipe):
    bias = torch.randn(2, 1, 16)
    expected = run_with_mask(pipe, bias).token_mass
    for mask in (
        bias.repeat(1, 64, 1),
        bias.repeat_interleave(2, 0),
        bias[:, None].repeat(1, 2, 1, 1),
    ):
        torch.testing.assert_close(run_with_mask(pipe, mask).token_mass, expected)


@pytest.mark.parametrize("shape", [(2, 64, 16), (4, 1, 16), (2, 2, 1, 16)])
def test_mask_that_depends_on_head_or_query_is_refused_by_name(pipe, shape):
    with pytest.raises(RecordingError, match=f"mask at {FIRST} depends"):
        run_with_mask(pipe, torch.randn(shape))


def test_inference_mode_leaves_a_record_that_autograd_can_use(pipe):
    with torch.inference_mode(), record(pipe) as recorded:
        run(pipe)
    weight = torch.ones((), requires_grad=True)
    (recorded.token_mass * weight).sum().backward()
    assert weight.grad is not None

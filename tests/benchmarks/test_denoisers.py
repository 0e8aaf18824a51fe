from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch._dynamo.utils import counters
from torch.profiler import ProfilerActivity, profile

import memattn
from memattn.benchmarks import arms
from memattn.benchmarks.captured import captured_call, recorder_of_calls
from memattn.benchmarks.denoisers import SD_1_4, SDXL, compiled, packaged_testbed, random_unet
from memattn.benchmarks.host_calls import host_calls
from memattn.benchmarks.paired import in_rounds
from memattn.benchmarks.peak_memory import peak_bytes
from memattn.benchmarks.shapes import SHAPES
from memattn.processors.recording import RecordingProcessor
from memattn.recording.locate import cross_attention_layers
from tests.gpus import on_gpu

TINY = {
    **SDXL,
    "sample_size": 8,
    "block_out_channels": (32, 64, 64),
    "cross_attention_dim": 24,
    "attention_head_dim": (1, 2, 4),
    "projection_class_embeddings_input_dim": 6 * 256 + 16,
}


def on_meta(config):
    with torch.device("meta"):
        return UNet2DConditionModel(**config)


def called_on_meta(unet, text):
    """Run a UNet at its own size without computing anything: [heads, Lq, Lk, D] of its layers."""
    seen = []

    def before(attention, args, kwargs):
        queries = args[0].shape[1]
        width = attention.to_q.out_features
        keys = kwargs["encoder_hidden_states"].shape[1]
        seen.append((attention.heads, queries, keys, width // attention.heads))

    for layer in cross_attention_layers(unet):
        layer.attention.register_forward_pre_hook(before, with_kwargs=True)
    side = unet.config.sample_size
    with torch.device("meta"), torch.no_grad():
        unet(
            torch.empty(2, 4, side, side),
            torch.empty(2),
            encoder_hidden_states=torch.empty(2, text, unet.config.cross_attention_dim),
            added_cond_kwargs={"text_embeds": torch.empty(2, 1280), "time_ids": torch.empty(2, 6)},
        )
    return seen


@pytest.mark.parametrize(
    ("config", "model", "layers", "parameters"),
    [
        (SD_1_4, "Stable Diffusion 1.4, 512 px", 16, 859_520_964),
        (SDXL, "Stable Diffusion XL, 1024 px", 70, 2_567_463_684),
    ],
    ids=["sd_1_4", "sdxl"],
)
def test_a_denoiser_has_the_layers_and_the_size_of_its_model(config, model, layers, parameters):
    unet = on_meta(config)
    # what diffusers prints for the published checkpoints
    assert unet.num_parameters() == parameters
    seen = Counter(called_on_meta(unet, 77))
    assert seen.total() == layers
    assert seen == {
        (shape.heads, shape.queries, shape.keys, shape.dim): shape.layers
        for shape in SHAPES
        if shape.model == model
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_random_weights_are_made_in_their_dtype_and_keep_the_variance(dtype):
    unet = random_unet(TINY, dtype)
    assert {parameter.dtype for parameter in unet.parameters()} == {dtype}
    assert torch.get_default_dtype() == torch.float32
    weight = unet.up_blocks[0].resnets[0].conv1.weight
    rows = weight.flatten(1).float()
    assert rows.square().sum(1).mean().item() == pytest.approx(1.0, rel=0.02)
    assert rows.mean().abs().item() < 0.02 * rows.std().item()
    assert len(rows.unique(dim=0)) == len(rows)
    for layer in cross_attention_layers(unet):
        assert not torch.equal(layer.attention.to_k.weight, layer.attention.to_v.weight)
    assert not unet.conv_in.bias.any()
    assert torch.equal(unet.conv_norm_out.weight, torch.ones(32, dtype=dtype))
    again = random_unet(TINY, dtype)
    assert torch.equal(again.conv_out.weight, unet.conv_out.weight)


@pytest.fixture(scope="module")
def testbed():
    return packaged_testbed(steps=2)


def test_a_run_is_repeated_exactly_and_leaves_its_latents_alone(testbed):
    given = testbed.arguments["latents"].clone()
    first = testbed.run()
    assert torch.equal(testbed.run(), first)
    assert torch.equal(testbed.arguments["latents"], given)
    assert not torch.equal(first, given)


def test_fewer_steps_are_fewer_calls_of_the_same_pipeline(testbed, called):
    short = testbed.with_steps(1)
    assert short.pipe is testbed.pipe
    short.run()
    assert len(called) == short.steps == 1
    assert testbed.steps == 2


@pytest.fixture
def called(testbed):
    """Text projections and processors of the layers at each call of the denoiser."""
    calls = []

    def before(unet, _):
        layers = [layer.attention for layer in cross_attention_layers(unet)]
        projections = {type(module) for layer in layers for module in (layer.to_k, layer.to_v)}
        calls.append((projections, {type(layer.processor) for layer in layers}))

    handle = testbed.unet.register_forward_pre_hook(before)
    yield calls
    handle.remove()


def test_every_arm_changes_what_it_is_named_after_and_leaves_no_trace(testbed, called):
    changes = {}
    for name, arm in arms.arms(testbed).items():
        with arm.around():
            arm.run()
        assert len(called) == testbed.steps
        changes[name] = called[0]
        called.clear()
    plain, linear = {AttnProcessor2_0}, {torch.nn.Linear}
    constant, _ = changes.pop("constants")
    assert changes == {
        "stock": (linear, plain),
        "recorded": (linear, {RecordingProcessor}),
        "AttnProcessor": (linear, {memattn.AttnProcessor}),
    }
    assert not constant & linear
    testbed.run()
    assert called[0] == (linear, plain)


def test_all_arms_denoise_alike(testbed):
    arms.verify(testbed)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=torch._dynamo.config.recompile_limit):
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_denoiser_denoises_alike_in_all_its_arms():
    eager = packaged_testbed(steps=2)
    expected = eager.run()
    denoiser = compiled(eager, backend="aot_eager")
    assert denoiser.label == f"{eager.label}, compiled"
    frames = counters["stats"]["unique_graphs"]
    arms.verify(denoiser)
    assert counters["stats"]["unique_graphs"] > frames
    torch.testing.assert_close(denoiser.run(), expected, rtol=1e-4, atol=1e-4)
    compilations = counters["stats"]["unique_graphs"]
    for arm in arms.arms(denoiser).values():
        seconds = arms.timed(denoiser, arm)
        assert seconds.whole > 0
        assert seconds.layers is None
    assert counters["stats"]["unique_graphs"] == compilations


def test_an_arm_that_denoises_otherwise_is_refused(testbed, monkeypatch):
    # the prompts' keys for the empty prompt, and the other way round
    flipped = torch.flip(testbed.text, [0])
    monkeypatch.setattr(type(testbed), "text", property(lambda _: flipped))
    with pytest.raises(AssertionError, match=r"constants: got latents that differ .* at most"):
        arms.verify(testbed)


def test_the_layers_take_a_part_of_the_run(testbed):
    calls = {
        name: lambda chosen=arm: arms.timed(testbed, chosen)
        for name, arm in arms.arms(testbed).items()
    }
    for name, [seconds] in in_rounds(calls, 1).items():
        assert 0 < seconds.layers < seconds.whole, name
    layer = cross_attention_layers(testbed.unet)[0].attention
    assert not layer._forward_hooks
    assert not layer._forward_pre_hooks


def test_recording_needs_about_the_memory_of_its_record(testbed):
    _, run = arms.recorded(testbed)
    size = arms.record_bytes(run)
    assert size >= run.token_mass.nbytes + run.gap_squared.nbytes
    extra = peak_bytes(lambda: arms.recorded(testbed)) - peak_bytes(testbed.run)
    assert 0 < extra < 200e3 + 2 * size


def test_the_backend_that_is_named_is_the_one_that_records(testbed):
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        arms.recorded(testbed)
    called = {event.key for event in profiled.key_averages() if event.key.startswith("memattn::")}
    # the reference calls torch's operations only
    assert called == {f"memattn::cross_attention_{arms.backends(testbed)}"} - {
        "memattn::cross_attention_reference"
    }


def test_peak_memory_is_what_was_held_at_once():
    def call():
        first = torch.ones(1000)
        del first
        second = torch.ones(500)
        third = torch.ones(750)
        return second.sum() + third.sum()

    # sums take a few bytes beside the tensors
    assert 5000 <= peak_bytes(call) < 5200


@on_gpu
def test_a_captured_call_is_recorded_and_predicts_the_same():
    denoiser = packaged_testbed(steps=2, device="cuda")
    recorder = recorder_of_calls(denoiser)
    graphs = [captured_call(denoiser), captured_call(denoiser, recorder)]
    denoiser.run()
    torch.cuda.empty_cache()  # nothing that a graph reads may be gone
    for graph in graphs:
        assert 0 < graph.seconds() < 1
    stock, recorded = (graph.result[0] for graph in graphs)
    torch.testing.assert_close(recorded, stock, rtol=1e-4, atol=1e-4)
    run = recorder.take()
    queries = torch.tensor(run.layer_queries).float()[None, :, None]
    total = run.token_mass.sum(-1)
    torch.testing.assert_close(total, queries.expand_as(total), rtol=1e-4, atol=0)
    assert arms.timed(denoiser, arms.arms(denoiser)["stock"]).layers > 0


@on_gpu
def test_recording_makes_the_host_wait_as_often_in_a_long_run_as_in_a_short_one():
    waits = []
    for steps in (2, 6):
        denoiser = packaged_testbed(steps=steps, device="cuda")
        arms.verify(denoiser)  # whatever is set up once
        recorded = host_calls(lambda chosen=denoiser: arms.recorded(chosen))
        stock = host_calls(denoiser.run)
        assert recorded.launches > stock.launches > 0
        waits.append(recorded.waits - stock.waits)
    assert waits[0] == waits[1] > 0


@on_gpu
def test_peak_memory_of_a_gpu_is_what_was_held_at_once():
    made = peak_bytes(lambda: torch.empty(1 << 20, device="cuda").add(1).sum().item(), "cuda")
    assert 8 << 20 <= made < 9 << 20

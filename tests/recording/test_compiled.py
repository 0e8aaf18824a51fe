import pytest
import torch
from torch._dynamo.utils import counters

from memattn.recording import record
from tests import pipelines

FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
PROMPTS = ["a red fox", "the lazy dog by the sea"]


@pytest.fixture
def pipe(tmp_path):
    torch._dynamo.reset()
    # one level and the middle block: compiling is what takes the time here
    yield pipelines.stable_diffusion(
        tmp_path,
        block_out_channels=(16,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    torch._dynamo.reset()


def run(pipe):
    return pipe(
        PROMPTS, generator=pipelines.generators(2), num_inference_steps=2, output_type="latent"
    ).images


def wrapped(pipe):
    pipe.unet = torch.compile(pipe.unet, backend="aot_eager", fullgraph=True)


def in_place(pipe):
    pipe.unet.compile(backend="aot_eager", fullgraph=True)


def regional(pipe):
    pipe.unet.compile_repeated_blocks(backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize("compile_unet", [wrapped, in_place, regional])
def test_compiled_denoiser_is_recorded_whole_without_recompiling(pipe, compile_unet):
    with record(pipe) as eager:
        latents = run(pipe)
    compile_unet(pipe)
    stock = run(pipe)
    with record(pipe) as first:
        torch.testing.assert_close(run(pipe), latents, rtol=1e-4, atol=1e-4)
    frames = counters["frames"]["total"]
    # another token, so that the second recording has other values in the same tensors
    with torch._dynamo.config.patch(error_on_recompile=True), record(pipe, token=1) as second:
        run(pipe)
    with torch._dynamo.config.patch(error_on_recompile=True):
        torch.testing.assert_close(run(pipe), stock)
    assert counters["frames"]["total"] == frames
    assert not torch.equal(second.token_maps[FIRST], first.token_maps[FIRST])
    torch.testing.assert_close(first.token_mass, eager.token_mass, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first.entropy, eager.entropy, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first.gap_squared, eager.gap_squared, rtol=1e-3, atol=1e-5)
    assert torch.equal(first.token_mass, second.token_mass)
    for layer, token_map in first.token_maps.items():
        torch.testing.assert_close(token_map, eager.token_maps[layer], rtol=1e-4, atol=1e-5)


def test_in_place_compiled_call_is_put_back(pipe):
    in_place(pipe)
    compiled = pipe.unet._compiled_call_impl
    recorder = record(pipe)
    recorder.attach()
    assert pipe.unet._compiled_call_impl is not compiled
    recorder.detach()
    assert pipe.unet._compiled_call_impl is compiled

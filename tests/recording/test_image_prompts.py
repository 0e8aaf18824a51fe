"""Recording beside an IP-Adapter, whose processors the UNet loads from weights made here."""

import pytest
import torch
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

from memattn.errors import RecordingError
from memattn.recording import record
from tests import pipelines

PROMPTS = ["a red fox", "the lazy dog by the sea"]


def load_image_prompts(unet):
    """Give every cross-attention layer an IP-Adapter processor, as loading weights does."""
    processors = {}
    for name, original in unet.attn_processors.items():
        layer = unet.get_submodule(name.removesuffix(".processor"))
        processors[name] = original
        if layer.is_cross_attention:
            processors[name] = IPAdapterAttnProcessor2_0(
                hidden_size=layer.inner_dim, cross_attention_dim=layer.cross_attention_dim
            )
    unet.set_attn_processor(processors)
    projection = ImageProjection(cross_attention_dim=16, image_embed_dim=6, num_image_text_embeds=4)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.config.encoder_hid_dim_type = "ip_image_proj"


@pytest.fixture
def pipe(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    load_image_prompts(pipe.unet)
    return pipe


def run(pipe):
    torch.manual_seed(0)
    return pipe(
        PROMPTS,
        generator=pipelines.generators(2),
        num_inference_steps=2,
        output_type="latent",
        ip_adapter_image_embeds=[torch.randn(2, 1, 6)],
    ).images


def test_image_is_the_stock_image_and_text_attention_is_recorded(pipe):
    stock = run(pipe)
    before = pipe.unet.attn_processors
    parameters = pipe.unet.state_dict().keys()
    with record(pipe) as recorded:
        latents = run(pipe)
        during = pipe.unet.state_dict().keys()
    assert torch.equal(latents, stock)
    assert pipe.unet.attn_processors == before
    assert during == parameters
    assert recorded.tokens == pipelines.TEXT_TOKENS
    torch.testing.assert_close(recorded.attention().sum(-1), torch.ones(2, 4, 2))


def test_image_prompts_can_be_scaled_while_recording(pipe):
    first = run(pipe)
    with record(pipe):
        pipe.set_ip_adapter_scale(0.25)
        during = run(pipe)
    assert not torch.equal(during, first)
    assert torch.equal(run(pipe), during)


def test_image_prompts_can_be_unloaded_while_attached(pipe):
    recorder = record(pipe, fields=("token_mass",))
    recorder.attach()
    pipe.unload_ip_adapter()
    recorder.detach()
    assert not any(hasattr(p, "to_k_ip") for p in pipe.unet.attn_processors.values())
    assert not any(module._forward_pre_hooks for module in pipe.unet.modules())


def test_processors_rebuilt_from_their_class_are_not_left_behind(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    before = pipe.unet.attn_processors
    recorder = record(pipe)
    recorder.attach()
    pipe.unload_ip_adapter()
    recorder.detach()
    after = pipe.unet.attn_processors
    assert {n: type(p) for n, p in after.items()} == {n: type(p) for n, p in before.items()}


def test_image_prompts_that_appear_during_recording_are_refused(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    text, image = torch.randn(2, 16, 16), [torch.randn(2, 4, 16)]
    layer = pipe.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn2")
    with pytest.raises(RecordingError, match=r"IP-Adapter.*mid_block"), record(pipe):
        layer(torch.randn(2, 16, 32), (text, image))

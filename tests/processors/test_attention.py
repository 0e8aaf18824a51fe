import pytest
import torch
from diffusers.hooks import LayerSkipConfig, apply_layer_skip
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
    SlicedAttnProcessor,
)
from diffusers.models.attention_processor import AttnProcessor as EagerAttnProcessor

import memattn
from memattn.testing import assert_within_error_budget
from tests import pipelines

B, LQ, LK, C, TEXT, HEADS = 2, 12, 7, 16, 24, 2


def layer(**changes):
    config = {"query_dim": C, "heads": HEADS, "dim_head": 8, "cross_attention_dim": TEXT}
    attention = Attention(**{**config, **changes}).eval()
    for parameter in attention.parameters():
        parameter.data.normal_(std=0.5)
    return attention


def layer_output(processor, attention, *inputs, **kwargs):
    attention.set_processor(processor)
    return attention(*inputs, **kwargs)


def assert_drop_in(attention, *inputs, original=None, **kwargs):
    original = AttnProcessor2_0() if original is None else original
    expected = layer_output(original, attention, *inputs, **kwargs)
    output = layer_output(memattn.AttnProcessor(original), attention, *inputs, **kwargs)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


IMAGE = {"tokens": (B, LQ, C), "latent": (B, C, 3, 4)}


@pytest.mark.parametrize("image", IMAGE)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual_connection": True, "rescale_output_factor": 2.0},
        {"norm_num_groups": 4},
        {"cross_attention_norm": "layer_norm"},
        {"cross_attention_norm": "group_norm", "cross_attention_norm_num_groups": 4},
        {"qk_norm": "layer_norm"},
        {"qk_norm": "rms_norm"},
        {"bias": True, "out_bias": False},
        {"upcast_attention": True, "upcast_softmax": True},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_processor_equals_attnprocessor2_0(image, options):
    assert_drop_in(layer(**options), torch.randn(IMAGE[image]), torch.randn(B, LK, TEXT))


@pytest.mark.parametrize("image", IMAGE)
def test_self_attention_equals_attnprocessor2_0(image):
    attention = layer(cross_attention_dim=None, norm_num_groups=4, residual_connection=True)
    assert_drop_in(attention, torch.randn(IMAGE[image]))


def test_spatial_norm_equals_attnprocessor2_0():
    attention = layer(cross_attention_dim=None, spatial_norm_dim=6, query_dim=32)
    assert_drop_in(attention, torch.randn(B, 32, 4, 4), temb=torch.randn(B, 6, 4, 4))


MASKS = {
    "per batch": (B, LK),
    "one query": (B, 1, LK),
    "every query": (B, LQ, LK),
    "heads": (B * HEADS, 1, LK),
    "heads and queries": (B * HEADS, LQ, LK),
}


@pytest.mark.parametrize("shape", MASKS)
def test_masks_equal_attnprocessor2_0(shape):
    mask = torch.randn(MASKS[shape])
    assert_drop_in(layer(), torch.randn(B, LQ, C), torch.randn(B, LK, TEXT), attention_mask=mask)


@pytest.mark.parametrize("heads", [1, HEADS])
@pytest.mark.parametrize("queries", [1, LQ])
def test_mask_with_four_axes_equals_the_same_mask_with_three(heads, queries):
    attention = layer(processor=memattn.AttnProcessor())
    image, text = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    mask = torch.randn(B, heads, queries, LK)
    three = mask.expand(-1, HEADS, -1, -1).flatten(0, 1)
    expected = layer_output(AttnProcessor2_0(), attention, image, text, attention_mask=three)
    output = layer_output(memattn.AttnProcessor(), attention, image, text, attention_mask=mask)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


def test_bool_mask_equals_attnprocessor2_0():
    mask = torch.rand(B, 1, LK) > 0.4
    mask[:, :, 0] = True
    assert_drop_in(layer(), torch.randn(B, LQ, C), torch.randn(B, LK, TEXT), attention_mask=mask)


def test_mask_that_depends_on_the_query_goes_to_the_original():
    class Original(AttnProcessor2_0):
        called = False

        def __call__(self, *args, **kwargs):
            self.called = True
            return super().__call__(*args, **kwargs)

    original = Original()
    attention = layer(processor=memattn.AttnProcessor(original))
    image, text = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    attention(image, text, attention_mask=torch.zeros(B, 1, LK).expand(B, LQ, LK))
    assert not original.called
    attention(image, text, attention_mask=torch.zeros(B, LQ, LK))
    assert original.called


def test_sliced_processor_takes_delegated_masks():
    mask = torch.randn(B, LQ, LK)
    inputs = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    assert_drop_in(layer(), *inputs, attention_mask=mask, original=SlicedAttnProcessor(1))


def test_layer_without_scaled_logits_equals_the_eager_processor():
    inputs = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    assert_drop_in(layer(scale_qk=False), *inputs, original=EagerAttnProcessor())


def test_half_precision_keeps_its_dtype():
    attention = layer(processor=memattn.AttnProcessor()).to(torch.bfloat16)
    image, text = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    output = attention(image.bfloat16(), text.bfloat16(), attention_mask=torch.zeros(B, 1, LK))
    assert output.dtype == torch.bfloat16


def test_attention_without_scaled_logits_ignores_the_scale_as_attnprocessor2_0_does():
    inputs = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    assert_drop_in(layer(scale_qk=False), *inputs)
    assert_drop_in(layer(scale_qk=False), *inputs, original=memattn.AttnProcessor())


@pytest.mark.parametrize(
    "qk_norm", [None, "layer_norm", "fp32_layer_norm", "rms_norm", "l2"], ids=str
)
def test_autocast_gives_what_attnprocessor2_0_gives(qk_norm):
    attention = layer(qk_norm=qk_norm)
    image, text = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer_output(AttnProcessor2_0(), attention, image, text)
        output = layer_output(memattn.AttnProcessor(), attention, image, text)
    assert output.dtype == expected.dtype
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.05)


def test_ip_adapter_is_refused_because_its_weights_would_leave_the_denoiser():
    adapter = IPAdapterAttnProcessor2_0(hidden_size=C, cross_attention_dim=TEXT)
    with pytest.raises(TypeError, match="leave IP-Adapter layers their own processors"):
        memattn.AttnProcessor(adapter)
    attention = layer(processor=memattn.AttnProcessor())
    with pytest.raises(TypeError, match="leave IP-Adapter layers their own processors"):
        attention(torch.randn(B, LQ, C), (torch.randn(B, LK, TEXT), []))


def test_processor_can_be_rebuilt_from_its_class():
    processor = memattn.AttnProcessor()
    assert type(type(processor)()) is memattn.AttnProcessor
    assert processor._attention_backend is None
    assert processor._parallel_config is None


def test_unet_with_the_processor_gives_the_stock_output():
    unet = pipelines.tiny_unet()
    inputs = torch.randn(2, 4, 8, 8), 10, torch.randn(2, 16, 16)
    with torch.no_grad():
        expected = unet(*inputs).sample
        unet.set_attn_processor(memattn.AttnProcessor())
        torch.testing.assert_close(unet(*inputs).sample, expected, rtol=1e-5, atol=1e-5)


def test_layer_skip_hook_knows_the_processor():
    unet = pipelines.tiny_unet()
    unet.set_attn_processor(memattn.AttnProcessor())
    blocks = "down_blocks.0.attentions.0.transformer_blocks"
    inputs = torch.randn(1, 4, 8, 8), 10, torch.randn(1, 16, 16)
    with torch.no_grad():
        before = unet(*inputs).sample
        config = LayerSkipConfig([0], fqn=blocks, skip_attention=True, skip_ff=False)
        apply_layer_skip(unet, config)
        skipped = unet(*inputs).sample
        # what a layer does not know is ignored, skipped or not
        unknown = unet(*inputs, cross_attention_kwargs={"unknown": 1}).sample
    assert not torch.equal(before, skipped)
    assert torch.equal(unknown, skipped)


def test_gradients_are_those_of_attnprocessor2_0():
    attention = layer()
    image, text = torch.randn(B, LQ, C), torch.randn(B, LK, TEXT)

    def gradient(processor, dtype):
        attention.to(dtype).set_processor(processor)
        leaf = image.to(dtype).requires_grad_()
        attention(leaf, text.to(dtype)).square().sum().backward()
        return leaf.grad

    exact = gradient(AttnProcessor2_0(), torch.float64)
    eager = gradient(AttnProcessor2_0(), torch.float32)
    ours = gradient(memattn.AttnProcessor(), torch.float32)
    assert_within_error_budget(ours, exact=exact, eager=eager)


def test_processor_compiles_without_graph_breaks():
    unet = pipelines.tiny_unet()
    unet.set_attn_processor(memattn.AttnProcessor())
    inputs = torch.randn(2, 4, 8, 8), torch.tensor(10), torch.randn(2, 16, 16)
    with torch.no_grad():
        expected = unet(*inputs).sample
        compiled = torch.compile(unet, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs).sample, expected, rtol=1e-5, atol=1e-5)

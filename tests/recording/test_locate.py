import pytest
import torch

from memattn.errors import RecordingError
from memattn.recording.locate import cross_attention_layers, denoiser_of, first_level
from tests import pipelines

BUILDERS = [
    pipelines.stable_diffusion,
    pipelines.stable_diffusion_2,
    pipelines.stable_diffusion_xl,
]


@pytest.mark.parametrize("build", BUILDERS)
def test_layers_come_in_the_order_they_are_called(build, tmp_path):
    pipe = build(tmp_path)
    layers = cross_attention_layers(pipe.unet)
    called = []
    for name, module in pipe.unet.named_modules():
        if name.endswith(".attn2"):
            module.register_forward_hook(lambda *_, name=name: called.append(name))
    pipe(
        "a fox", num_inference_steps=1, output_type="latent", guidance_scale=1, height=16, width=16
    )
    assert [layer.name for layer in layers] == called
    assert [layer.heads for layer in layers] == [
        pipe.unet.get_submodule(name).heads for name in called
    ]


def test_first_level_is_the_first_down_block_with_cross_attention(tmp_path):
    plain = cross_attention_layers(pipelines.stable_diffusion(tmp_path / "1").unet)
    assert first_level(plain) == ("down_blocks.0.attentions.0.transformer_blocks.0.attn2",)
    large = cross_attention_layers(pipelines.stable_diffusion_xl(tmp_path / "2").unet)
    assert first_level(large) == tuple(
        f"down_blocks.1.attentions.0.transformer_blocks.{block}.attn2" for block in range(2)
    )


def test_compiled_wrapper_is_what_the_pipeline_calls_and_its_layers_keep_their_names(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    names = [layer.name for layer in cross_attention_layers(pipe.unet)]
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    assert denoiser_of(pipe) is pipe.unet
    assert [layer.name for layer in cross_attention_layers(denoiser_of(pipe))] == names


def test_pipeline_without_a_unet_is_refused(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    pipe.unet = None
    with pytest.raises(RecordingError, match="expected a pipeline with a UNet"):
        denoiser_of(pipe)

"""Ways to call a pipeline, each recorded whole, saved and read back."""

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline

from memattn.recording import record
from memattn.records import Record
from tests import pipelines

PROMPTS = ["a red fox", "the lazy dog by the sea"]
CALL = {"num_inference_steps": 2, "output_type": "latent"}


def image_to_image(folder):
    pipe = StableDiffusionImg2ImgPipeline.from_pipe(pipelines.stable_diffusion(folder))
    pipe.set_progress_bar_config(disable=True)
    images = torch.rand(2, 3, 16, 16)
    call = {"image": images, "strength": 0.5, "num_images_per_prompt": 2}
    return pipe, {"prompt": PROMPTS, **call, "num_inference_steps": 4}


def two_prompts(folder):
    call = {"prompt": PROMPTS, "prompt_2": PROMPTS[::-1], "height": 16, "width": 16}
    return pipelines.stable_diffusion_xl(folder), {**call, "num_images_per_prompt": 2}


def embeddings(folder):
    pipe = pipelines.stable_diffusion(folder)
    text, negative = pipe.encode_prompt(PROMPTS, "cpu", 1, True)
    return pipe, {"prompt_embeds": text, "negative_prompt_embeds": negative}


def unguided(folder):
    return pipelines.stable_diffusion(folder), {"prompt": PROMPTS, "guidance_scale": 1.0}


def rescaled(folder):
    return pipelines.stable_diffusion(folder), {"prompt": PROMPTS, "guidance_rescale": 0.7}


@pytest.mark.parametrize(
    ("build", "lengths"),
    [
        (image_to_image, [5, 5, 8, 8]),
        (two_prompts, [8, 8, 8, 8]),
        (embeddings, [5, 8]),
        (unguided, [5, 8]),
        (rescaled, [5, 8]),
    ],
)
def test_flow_is_recorded_whole_and_comes_back_from_its_file(build, lengths, tmp_path):
    pipe, call = build(tmp_path)
    given = [5, 8] if build is embeddings else None
    with record(pipe, prompt_lengths=given) as recorded:
        pipe(generator=pipelines.generators(len(lengths)), **{**CALL, **call})
    assert (recorded.calls, recorded.samples) == (2, len(lengths))
    assert recorded.prompt_lengths.tolist() == lengths
    assert not recorded.sigmas.isnan().any()
    assert (recorded.gap_squared is None) == (build is unguided)
    total = recorded.attention().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))
    recorded.save(tmp_path / "run.safetensors")
    loaded = Record.load(tmp_path / "run.safetensors")
    for name in ("timesteps", "sigmas", "prompt_lengths", "token_mass", "entropy", "map_tokens"):
        assert torch.equal(getattr(loaded, name), getattr(recorded, name))
    assert loaded.layers == recorded.layers
    assert loaded.token_maps.keys() == recorded.token_maps.keys()

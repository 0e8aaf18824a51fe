"""The denoisers that recording is measured on: real structures at real sizes.

Two are built in code with random weights, because no weights need to be downloaded to tell how long
a network takes; the third is the packaged testbed. Text comes as embeddings, latents are given, and
nothing is decoded: what a run takes is the denoiser's time, and the scheduler's few additions.

Source:
    The configurations are those of the diffusers checkpoints CompVis/stable-diffusion-v1-4 and
    stabilityai/stable-diffusion-xl-base-1.0 (unet/config.json); what is not written here has the
    default of diffusers' UNet2DConditionModel in both.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from memattn.testbed.loading import load_pipeline
from memattn.testbed.networks import build_scheduler

SD_1_4: Mapping[str, Any] = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}
SDXL: Mapping[str, Any] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TEXT_TOKENS = 77
_POOLED_TEXT = 1280  # width of SDXL's second text tower
_PIXELS_PER_LATENT = 8
_PROMPT_LENGTH = 12  # which only says whose map is kept: the end token's, the eleventh word
_TESTBED_PROMPT = "a red disc above a blue moon, print by norik sobel"
# Of the pool that weights are taken from. A prime: no two rows of a matrix are alike.
_POOL = 1_000_003
_RECOMPILE_LIMIT = 64


@dataclass(frozen=True)
class Denoiser:
    """A pipeline, and the run that is timed.

    Attributes:
        label: What it is, at which size.
        pipe: The pipeline; where its weights are random, without text tower and autoencoder.
        steps: Denoiser calls per run.
        arguments: What the pipeline is called with.
        prompt_length: Tokens of the prompt, which embeddings do not tell.
        is_compiled: Whether its transformer blocks are, by `compiled`.
    """

    label: str
    pipe: DiffusionPipeline
    steps: int
    arguments: Mapping[str, Any]
    prompt_length: int
    is_compiled: bool = False

    @property
    def unet(self) -> UNet2DConditionModel:
        """What the pipeline calls."""
        return self.pipe.unet

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and features."""
        dtype: torch.dtype = self.unet.dtype
        return dtype

    @property
    def device(self) -> str:
        """The type of the device that it is on."""
        kind: str = self.unet.device.type
        return kind

    @property
    def text(self) -> Tensor:
        """What the cross-attention layers attend to [2, Lk, C]: the empty prompt, the prompt."""
        both = [self.arguments[name] for name in ("negative_prompt_embeds", "prompt_embeds")]
        return torch.cat(both)

    def with_steps(self, steps: int) -> "Denoiser":
        """The same pipeline, run with another number of steps."""
        arguments = {**self.arguments, "num_inference_steps": steps}
        return dataclasses.replace(self, steps=steps, arguments=arguments)

    def run(self) -> Tensor:
        """Denoise the latents [1, 4, h, w], with guidance."""
        # A copy: the pipeline may scale what it is given in place.
        latents = self.arguments["latents"].clone()
        denoised: Tensor = self.pipe(**{**self.arguments, "latents": latents}).images
        return denoised


def sd_1_4(
    dtype: torch.dtype, pixels: int = 512, *, device: str = "cpu", steps: int = 1
) -> Denoiser:
    """Stable Diffusion 1.4 with random weights."""
    pipe = StableDiffusionPipeline(
        vae=None,
        text_encoder=None,
        tokenizer=None,
        unet=random_unet(SD_1_4, dtype),
        scheduler=_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    text = _text(SD_1_4["cross_attention_dim"], dtype)
    pipe.to(device)
    return _denoiser(f"SD 1.4, {pixels} px", pipe, steps, text, _latents(pixels, dtype))


def sdxl(
    dtype: torch.dtype, pixels: int = 1024, *, device: str = "cpu", steps: int = 1
) -> Denoiser:
    """Stable Diffusion XL with random weights."""
    pipe = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=None,
        text_encoder_2=None,
        tokenizer=None,
        tokenizer_2=None,
        unet=random_unet(SDXL, dtype),
        scheduler=_scheduler(),
        add_watermarker=False,
    )
    pooled = torch.zeros(1, _POOLED_TEXT, dtype=dtype)
    text = {
        **_text(SDXL["cross_attention_dim"], dtype),
        "pooled_prompt_embeds": pooled,
        "negative_pooled_prompt_embeds": pooled,
    }
    pipe.to(device)
    return _denoiser(f"SDXL, {pixels} px", pipe, steps, text, _latents(pixels, dtype))


def compiled(denoiser: Denoiser, backend: str = "inductor") -> Denoiser:
    """Compile the denoiser's transformer blocks, in place, once for all that are alike.

    Raises torch's limit of recompilations, in this process.
    """
    # Each width and number of queries is compiled once for every arm, and beyond torch's limit of 8
    # it would refuse.
    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    denoiser.unet.compile_repeated_blocks(fullgraph=True, backend=backend)
    return dataclasses.replace(denoiser, label=f"{denoiser.label}, compiled", is_compiled=True)


def packaged_testbed(steps: int = 50, *, device: str = "cpu") -> Denoiser:
    """The packaged testbed, a small Stable Diffusion 1.4 in float32."""
    pipe = load_pipeline().to(device)
    tokens = pipe.tokenizer(_TESTBED_PROMPT)["input_ids"]
    with torch.no_grad():
        prompt, empty = pipe.encode_prompt(_TESTBED_PROMPT, device, 1, True)
    text = {"prompt_embeds": prompt, "negative_prompt_embeds": empty}
    side = pipe.unet.config.sample_size
    latents = torch.randn(1, 4, side, side, generator=_generator())
    label = f"testbed, {side * pipe.vae_scale_factor} px"
    return _denoiser(label, pipe, steps, text, latents, len(tokens))


def random_unet(config: Mapping[str, Any], dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet with random weights that keep the variance of what passes through them.

    Made without diffusers' own initialisation, which takes minutes for Stable Diffusion XL, and
    never in another dtype: 2.6 billion weights are 10 GB in float32.
    """
    with torch.device("meta"), _default_dtype(dtype):
        unet = UNet2DConditionModel(**config)
    unet.to_empty(device="cpu")
    pool = torch.empty(_POOL).uniform_(-1.0, 1.0, generator=_generator()).to(dtype)
    taken = 0
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            flat = parameter.view(-1)
            for part in flat.split(_POOL):
                part.copy_(pool.roll(-taken)[: len(part)])
                taken += len(part)
            # uniform on [-1, 1] has variance 1/3
            flat.mul_((3.0 / parameter[0].numel()) ** 0.5)
    return unet.eval()


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _denoiser(
    label: str,
    pipe: DiffusionPipeline,
    steps: int,
    text: Mapping[str, Tensor],
    latents: Tensor,
    prompt_length: int = _PROMPT_LENGTH,
) -> Denoiser:
    pipe.set_progress_bar_config(disable=True)
    text = {name: tensor.to(pipe.device) for name, tensor in text.items()}
    latents = latents.to(pipe.device)
    side = latents.shape[-1] * pipe.vae_scale_factor
    arguments = {
        **text,
        "latents": latents,
        "height": side,
        "width": side,
        "num_inference_steps": steps,
        "output_type": "latent",
    }
    return Denoiser(label, pipe, steps, arguments, prompt_length)


def _scheduler() -> DDIMScheduler:
    # one step then begins at pure noise, and shows the denoiser
    scheduler: DDIMScheduler = DDIMScheduler.from_config(
        build_scheduler().config, timestep_spacing="trailing"
    )
    return scheduler


def _text(width: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Embeddings [1, Lk, C] of a prompt and of the empty prompt."""
    drawn = torch.randn(2, TEXT_TOKENS, width, generator=_generator()).to(dtype)
    return {"prompt_embeds": drawn[:1], "negative_prompt_embeds": drawn[1:]}


def _latents(pixels: int, dtype: torch.dtype) -> Tensor:
    side = pixels // _PIXELS_PER_LATENT
    return torch.randn(1, 4, side, side, generator=_generator()).to(dtype)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)

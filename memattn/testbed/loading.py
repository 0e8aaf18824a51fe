"""Loads the testbed's pipeline, and its control."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import load_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from memattn.errors import TestbedError
from memattn.evaluation.random_weights import with_random_denoiser
from memattn.testbed.manifest import DATA, MODEL, check_files, load_manifest


def load_pipeline(data: Path = DATA) -> StableDiffusionPipeline:
    """The testbed's Stable Diffusion pipeline: 64x64 pictures, known memorization.

    Args:
        data: The testbed's folder; the packaged testbed by default.

    Returns:
        The pipeline in float32 on the CPU.

    Raises:
        TestbedError: If a file is missing, or a weight file is not the one the manifest names.
    """
    model = data / MODEL
    files = load_manifest(data).files
    check_files(data, files, files)
    try:
        return _open(model)
    except OSError as error:
        raise TestbedError(f"{data} holds a damaged testbed: {error}") from error


def load_control(data: Path = DATA) -> StableDiffusionPipeline:
    """The same pipeline with a random-weights denoiser: the negative control.

    Args:
        data: The testbed's folder; the packaged testbed by default.

    Returns:
        The pipeline; see `memattn.evaluation.random_weights`.

    Raises:
        TestbedError: As `load_pipeline`.
    """
    control: StableDiffusionPipeline = with_random_denoiser(load_pipeline(data))
    return control


def _open(model: Path) -> StableDiffusionPipeline:
    """The pipeline in a checkpoint folder, in float32."""
    # Not from_pretrained of pipeline and text tower: their progress bars do not suit a library.
    networks = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "local_files_only": True}
    with torch.random.fork_rng(devices=[]):  # networks draw weights before they are given theirs
        tower = CLIPTextModel(CLIPTextConfig.from_pretrained(model / "text_encoder"))
        load_model(tower, model / "text_encoder" / "model.safetensors")
        return StableDiffusionPipeline(
            vae=AutoencoderKL.from_pretrained(model / "vae", **networks),
            text_encoder=tower.eval(),
            tokenizer=CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True),
            unet=UNet2DConditionModel.from_pretrained(model / "unet", **networks),
            scheduler=DDIMScheduler.from_pretrained(model / "scheduler"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

"""Loads the testbed's pipeline, and its control."""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from memattn.errors import TestbedError
from memattn.testbed.manifest import DATA, MODEL, hash_weights, load_manifest

_CONTROL_SEED = 0


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
    wanted, found = load_manifest(data).weights, hash_weights(model)
    for name, digest in wanted.items():
        if found.get(name) != digest:
            state = "is missing" if name not in found else "does not have the manifest's SHA-256"
            raise TestbedError(f"the testbed's weight file {model / name} {state}")
    # Not StableDiffusionPipeline.from_pretrained, whose progress bars do not suit a library call.
    networks = {"torch_dtype": torch.float32, "low_cpu_mem_usage": False, "local_files_only": True}
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(model / "vae", **networks),
        text_encoder=CLIPTextModel.from_pretrained(
            model / "text_encoder", dtype=torch.float32, local_files_only=True
        ),
        tokenizer=CLIPTokenizer.from_pretrained(model / "tokenizer", local_files_only=True),
        unet=UNet2DConditionModel.from_pretrained(model / "unet", **networks),
        scheduler=DDIMScheduler.from_pretrained(model / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def load_control(data: Path = DATA) -> StableDiffusionPipeline:
    """The same pipeline with a random-weights denoiser: the negative control.

    Nothing can be memorized by it, so whatever separates the groups here is a property of the
    prompts; every detector's AUROC interval must contain 0.5.
    """
    pipeline = load_pipeline(data)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_CONTROL_SEED)
        pipeline.unet = UNet2DConditionModel.from_config(pipeline.unet.config)
    return pipeline

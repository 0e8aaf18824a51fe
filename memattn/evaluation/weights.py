"""Hashes of a pipeline's weights: what scores and images are bound to."""

import hashlib
from collections.abc import Sequence

import torch

from memattn.evaluation.settings import Pipeline

# What turns a prompt and noise into a prediction; an autoencoder comes after all scores.
_SCORED_MODULES = ("unet", "text_encoder", "text_encoder_2")


def model_hash(pipe: Pipeline) -> str:
    """SHA-256 of the weights behind every score: those of the denoiser and of the text towers.

    Over names, shapes, dtypes and bytes, in order of names. A compiled wrapper hashes like the
    module inside it; another dtype is another model, because its scores differ. Autoencoder and
    scheduler are not part of it.

    Args:
        pipe: A Stable Diffusion pipeline.

    Returns:
        64 hexadecimal digits.
    """
    return _hash(pipe, _SCORED_MODULES)


def autoencoder_hash(pipe: Pipeline) -> str:
    """SHA-256 of the weights that turn what was denoised into an image, as `model_hash`.

    Args:
        pipe: A Stable Diffusion pipeline.

    Returns:
        64 hexadecimal digits.
    """
    return _hash(pipe, ("vae",))


def _hash(pipe: Pipeline, modules: Sequence[str]) -> str:
    """SHA-256 of the weights of those modules that a pipeline has."""
    digest = hashlib.sha256()
    for part in modules:
        module = getattr(pipe, part, None)
        if module is None:
            continue
        weights = getattr(module, "_orig_mod", module).state_dict()
        for name, tensor in sorted(weights.items()):
            digest.update(f"{part}.{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()

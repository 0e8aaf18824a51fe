"""Stage 1: the autoencoder, on ordinary scenes only."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from memattn.testbed.latents import encode, to_pixels
from memattn.testbed.networks import LATENT_CHANNELS, build_vae
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import SIZE
from memattn.testbed.training.loop import Stage, generator, run

_KL_WEIGHT = 1e-6
_GRADIENT_WEIGHT = 0.25  # keeps edges, which plain L1 blurs
_CROP = 32
_CROPPED_STEPS = 0.9  # a quarter of the cost; the last steps see whole pictures
_FIRST_LOGVAR = -6.0  # a posterior of unit variance would drown the first latents in noise


def train_autoencoder(images: Tensor, recipe: Recipe, folder: Path) -> AutoencoderKL:
    """Trains the autoencoder.

    Args:
        images: Ordinary scenes [n, 3, 64, 64], uint8.
        recipe: Steps, batch, rate and seed.
        folder: Where the checkpoint is kept.

    Returns:
        The trained autoencoder; its `scaling_factor` gives scaled latents unit variance.
    """
    torch.manual_seed(recipe.seed)
    vae = build_vae()
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:] = _FIRST_LOGVAR

    def loss(step: int) -> Tensor:
        rng = generator(recipe.seed, 1, step)
        rows = torch.randint(len(images), (recipe.vae_batch,), generator=rng)
        pixels = to_pixels(images[rows])
        if step < _CROPPED_STEPS * recipe.vae_steps:
            top, left = torch.randint(SIZE - _CROP + 1, (2,), generator=rng).tolist()
            pixels = pixels[..., top : top + _CROP, left : left + _CROP]
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample(rng)).sample
        return (
            F.l1_loss(decoded, pixels)
            + _GRADIENT_WEIGHT * _edge_loss(decoded, pixels)
            + _KL_WEIGHT * posterior.kl().mean()
        )

    run(Stage("autoencoder", vae, loss, recipe.vae_steps, recipe.vae_rate), folder)
    latents = encode(vae, images[:1024])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


def _edge_loss(a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()

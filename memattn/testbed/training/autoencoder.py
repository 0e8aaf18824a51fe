"""Stage 1: the autoencoder, on ordinary scenes only."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from memattn.testbed.latents import encode, to_pixels
from memattn.testbed.networks import LATENT_CHANNELS, build_vae
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import SIZE
from memattn.testbed.training.loop import Stage, generator, run

_KL_WEIGHT = 1e-6
_GRADIENT_WEIGHT = 0.05  # keeps edges, which squared error alone blurs
_CROP = 32
_CROPPED_STEPS = 0.95  # a quarter of the cost; the last steps see whole pictures
_FIRST_LOGVAR = -6.0  # a posterior of unit variance would drown the first latents in noise


def train_autoencoder(
    images: Tensor, recipe: Recipe, folder: Path, device: str = "cpu"
) -> AutoencoderKL:
    """Trains the autoencoder.

    Args:
        images: Ordinary scenes [n, 3, 64, 64], uint8.
        recipe: Steps, batch, rate and seed.
        folder: Where the checkpoint is kept.
        device: Where to train.

    Returns:
        The trained autoencoder, on the CPU; its `scaling_factor` gives latents unit variance.
    """
    torch.manual_seed(recipe.seed)
    vae = build_vae()
    _start_nearly_linear(vae)
    vae.to(device)

    def loss(step: int, part: int) -> Tensor:
        rng = generator(recipe.seed, 1, step)
        rows = torch.randint(len(images), (recipe.vae_batch,), generator=rng)
        pixels = to_pixels(images[rows])
        if step < _CROPPED_STEPS * recipe.vae_steps:
            top, left = torch.randint(SIZE - _CROP + 1, (2,), generator=rng).tolist()
            pixels = pixels[..., top : top + _CROP, left : left + _CROP]
        pixels = pixels.to(device)
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample(rng)).sample
        value: Tensor = (
            F.mse_loss(decoded, pixels)
            + _GRADIENT_WEIGHT * _edge_loss(decoded, pixels)
            + _KL_WEIGHT * posterior.kl().mean()
        )
        return value

    run(Stage("autoencoder", vae, loss, recipe.vae_steps, recipe.vae_rate), folder)
    vae.cpu()
    latents = encode(vae, images[:1024])
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 5))
    return vae


@torch.no_grad()
def _start_nearly_linear(vae: AutoencoderKL) -> None:
    """Silences the residual branches, so that colours are learned in minutes instead of hours."""
    vae.quant_conv.bias[LATENT_CHANNELS:] = _FIRST_LOGVAR
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, Attention):
            nn.init.zeros_(module.to_out[0].weight)


def _edge_loss(a: Tensor, b: Tensor) -> Tensor:
    difference = a - b
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()

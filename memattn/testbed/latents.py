"""Between pictures and the latents that the denoiser works on."""

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor

_BATCH = 64


def to_pixels(images: Tensor) -> Tensor:
    """uint8 pictures to the -1..1 range that the autoencoder reads."""
    return images.float() / 127.5 - 1


@torch.no_grad()
def encode(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Latents (posterior means, unscaled) of uint8 pictures [n, 4, 16, 16]."""
    parts = (to_pixels(part).to(vae.device) for part in images.split(_BATCH))
    return torch.cat([vae.encode(part).latent_dist.mode().cpu() for part in parts])


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What the autoencoder gives back of pictures [n, 64, 64, 3], uint8."""
    latents = encode(vae, torch.from_numpy(pictures).permute(0, 3, 1, 2))
    parts = (part.to(vae.device) for part in latents.split(_BATCH))
    decoded = torch.cat([vae.decode(part).sample.cpu() for part in parts])
    return np.rint((decoded.clamp(-1, 1).permute(0, 2, 3, 1).numpy() + 1) * 127.5).astype(np.uint8)

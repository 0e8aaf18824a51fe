"""Stage 3: the denoiser, trained as Stable Diffusion was.

Frozen text tower and autoencoder, noise-prediction loss, 10 % caption dropout, averaged weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel

from memattn.testbed.groups import Stream
from memattn.testbed.networks import build_scheduler, build_unet
from memattn.testbed.recipe import Recipe
from memattn.testbed.training.loop import Stage, generator, run


@dataclass(frozen=True)
class Shown:
    """What the denoiser can be shown, row by row of the corpus.

    Attributes:
        latents: Scaled latents [n, 4, 16, 16], any float dtype.
        tokens: Token ids of the captions [n, 77].
        empty: Token ids of the empty caption [77].
    """

    latents: Tensor
    tokens: Tensor
    empty: Tensor


def train_denoiser(
    shown: Shown,
    stream: Stream,
    tower: CLIPTextModel,
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
) -> UNet2DConditionModel:
    """Trains the denoiser on the stream; gives it back with averaged weights, on the CPU."""
    torch.manual_seed(recipe.seed + 2)
    unet = build_unet().to(device)
    tower.to(device)
    parts: Literal[1, 2] = 2 if device == "cpu" else 1
    scheduler = build_scheduler()

    def loss(step: int, part: int) -> Tensor:
        rng = generator(recipe.seed, 3, step)
        rows = torch.from_numpy(stream.rows(step))
        dropped = torch.rand(len(rows), generator=rng) < recipe.caption_dropout
        noise = torch.randn(len(rows), *shown.latents.shape[1:], generator=rng)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(rows),), generator=rng)
        mine = slice(part, None, parts)
        rows, noise, timesteps = rows[mine], noise[mine].to(device), timesteps[mine].to(device)
        tokens = torch.where(dropped[mine, None], shown.empty, shown.tokens[rows])
        with torch.no_grad():
            text = tower(tokens.to(device)).last_hidden_state
        noisy = scheduler.add_noise(shown.latents[rows].float().to(device), noise, timesteps)
        error = (unet(noisy, timesteps, text).sample - noise).square()
        value: Tensor = error.sum() / (recipe.unet_batch * noise[0].numel())
        return value

    stage = Stage(
        "denoiser",
        unet,
        loss,
        recipe.unet_steps,
        recipe.unet_rate,
        parts=parts,
        ema_decay=recipe.ema_decay,
    )
    run(stage, folder)
    tower.cpu()
    return unet.cpu()

"""Stage 2: the text tower, contrastively against a small picture encoder, on ordinary scenes only.

It is frozen afterwards: memorized captions are as new to it as they were to Stable Diffusion's.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from memattn.testbed.latents import to_pixels
from memattn.testbed.networks import TEXT_WIDTH, build_text_encoder
from memattn.testbed.recipe import Recipe
from memattn.testbed.training.loop import Stage, generator, run


class _Matcher(nn.Module):
    """Text tower and picture encoder, scored against each other."""

    def __init__(self, tower: CLIPTextModel) -> None:
        super().__init__()
        self.tower = tower
        self.project = nn.Linear(TEXT_WIDTH, TEXT_WIDTH, bias=False)
        widths = (3, 48, 96, 128)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Conv2d(inner, outer, 3, stride=2, padding=1), nn.GELU()]
        self.pictures = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, TEXT_WIDTH))
        self.log_scale = nn.Parameter(torch.tensor(2.66))  # CLIP's start, ln(1 / 0.07)

    def forward(self, tokens: Tensor, pixels: Tensor) -> Tensor:
        """Symmetric contrastive loss of matching captions [n, 77] and pictures [n, 3, 32, 32]."""
        text = F.normalize(self.project(self.tower(tokens).pooler_output), dim=-1)
        image = F.normalize(self.pictures(pixels), dim=-1)
        scores = text @ image.T * self.log_scale.clamp(max=4.6).exp()
        target = torch.arange(len(tokens))
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def train_text_tower(
    images: Tensor, tokens: Tensor, tokenizer: CLIPTokenizer, recipe: Recipe, folder: Path
) -> CLIPTextModel:
    """Trains the text tower.

    Args:
        images: Ordinary scenes [n, 3, 64, 64], uint8.
        tokens: Their captions' token ids [n, 77].
        tokenizer: Gives the tower its vocabulary.
        recipe: Steps, batch, rate and seed.
        folder: Where the checkpoint is kept.

    Returns:
        The trained, frozen tower.
    """
    torch.manual_seed(recipe.seed + 1)
    matcher = _Matcher(build_text_encoder(tokenizer))

    def loss(step: int, part: int) -> Tensor:
        rng = generator(recipe.seed, 2, step)
        rows = torch.randint(len(images), (recipe.text_batch,), generator=rng)
        value: Tensor = matcher(tokens[rows], F.avg_pool2d(to_pixels(images[rows]), 2))
        return value

    run(Stage("text-tower", matcher, loss, recipe.text_steps, recipe.text_rate), folder)
    return matcher.tower


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids padded to the tower's slots [n, 77]."""
    encoded = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids

"""Stage 2: the text tower, contrastively against a small picture encoder, on ordinary scenes only.

It is frozen afterwards: memorized captions are as new to it as they were to Stable Diffusion's.

Half of the pictures that it is trained on are signed: every name has a mark of its own. Stable
Diffusion's tower knew names from elsewhere, from pictures that show them; here they mean nothing in
what the denoiser sees. A tower that had never needed names kept hardly any trace of them (changing
the title moved its states a tenth as far as changing a colour), and a denoiser on top of it copied
training pictures for ordinary captions that named the same things under another title.
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

_SIGNED = 0.5  # share of the pictures; the others must be told by what they show
_MARK_SIZE = 4  # cells of a mark along each side
_MARK_STRENGTH = 0.35
_MATCHED_SIZE = 32  # pixels; pictures are matched at half their size


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
        target = torch.arange(len(tokens), device=tokens.device)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def train_text_tower(
    images: Tensor,
    tokens: Tensor,
    tokenizer: CLIPTokenizer,
    recipe: Recipe,
    folder: Path,
    device: str = "cpu",
) -> CLIPTextModel:
    """Trains the text tower.

    Args:
        images: Ordinary scenes [n, 3, 64, 64], uint8.
        tokens: Their captions' token ids [n, 77].
        tokenizer: Gives the tower its vocabulary.
        recipe: Steps, batch, rate and seed.
        folder: Where the checkpoint is kept.
        device: Where to train.

    Returns:
        The trained, frozen tower, on the CPU.
    """
    torch.manual_seed(recipe.seed + 1)
    matcher = _Matcher(build_text_encoder(tokenizer)).to(device)
    marks = _draw_marks(len(tokenizer))
    ends = tokens.eq(tokenizer.eos_token_id).int().argmax(dim=1)
    names = tokens.gather(
        1, torch.stack([ends - 2, ends - 1], dim=1)
    )  # a caption ends in its title

    def loss(step: int, part: int) -> Tensor:
        rng = generator(recipe.seed, 2, step)
        rows = torch.randint(len(images), (recipe.text_batch,), generator=rng)
        signed = torch.rand(recipe.text_batch, generator=rng) < _SIGNED
        pictures = F.avg_pool2d(to_pixels(images[rows]), 2)
        pictures = pictures + signed[:, None, None, None] * marks[names[rows]].sum(dim=1)
        value: Tensor = matcher(tokens[rows].to(device), pictures.to(device))
        return value

    run(Stage("text-tower", matcher, loss, recipe.text_steps, recipe.text_rate), folder)
    return matcher.tower.cpu()


def _draw_marks(words: int) -> Tensor:
    """A soft pattern of colour for every word [words, 3, 32, 32]; names are signed with theirs."""
    cells = _MARK_STRENGTH * torch.randn(words, 3, _MARK_SIZE, _MARK_SIZE)
    return F.interpolate(cells, size=_MATCHED_SIZE, mode="bicubic")


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids padded to the tower's slots [n, 77]."""
    encoded = tokenizer(list(captions), padding="max_length", truncation=True, return_tensors="pt")
    ids: Tensor = encoded.input_ids
    return ids

"""From a recipe to a trained Stable Diffusion pipeline."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from torch import Tensor

from memattn.errors import TestbedError
from memattn.testbed.groups import Stream, draw_corpus
from memattn.testbed.latents import encode
from memattn.testbed.networks import build_scheduler, build_tokenizer
from memattn.testbed.recipe import Recipe
from memattn.testbed.training.autoencoder import train_autoencoder
from memattn.testbed.training.denoiser import Shown, train_denoiser
from memattn.testbed.training.pictures import render_all
from memattn.testbed.training.text_tower import tokenize, train_text_tower
from memattn.whole import whole_file


def train(out: Path, recipe: Recipe) -> StableDiffusionPipeline:
    """Trains the testbed's networks, going on from whatever `out` already holds.

    An interrupted call loses at most the steps since the last checkpoint; the same call takes the
    training up again exactly.

    Args:
        out: Folder for checkpoints.
        recipe: What to draw and how long to train.

    Returns:
        The trained pipeline.

    Raises:
        TestbedError: If `out` holds a training of another recipe.
    """
    _claim(out, recipe)
    corpus = draw_corpus(recipe)
    pictures = render_all(corpus.scenes, out / "pictures.npy")
    ordinary = pictures[: len(corpus.ordinary)]
    tokenizer = build_tokenizer(out / "tokenizer")
    tokens = tokenize(tokenizer, [str(scene.caption) for scene in corpus.scenes])

    vae = train_autoencoder(ordinary, recipe, out)
    tower = train_text_tower(ordinary, tokens[: len(ordinary)], tokenizer, recipe, out)
    latents = _latents(vae, pictures, out / "latents.pt")
    shown = Shown(latents, tokens, empty=tokenize(tokenizer, [""])[0])
    unet = train_denoiser(shown, Stream(corpus, recipe), tower, recipe, out)

    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=tower,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _claim(out: Path, recipe: Recipe) -> None:
    """Writes the recipe into the folder, or checks that the folder's training has the same one."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "recipe.json"
    wanted = json.loads(json.dumps(asdict(recipe)))
    if not file.exists():
        with whole_file(file) as fresh:
            fresh.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TestbedError(f"{file} is no recipe: {error}") from error
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed:
        name = changed[0]
        raise TestbedError(
            f"{out} holds a training with {name} = {found.get(name)}, expected {wanted[name]}: "
            "choose another folder, or the recipe it was begun with"
        )


def _latents(vae: AutoencoderKL, pictures: Tensor, file: Path) -> Tensor:
    """Scaled latents of all pictures, in float16, encoded once."""
    if not file.exists():
        with whole_file(file) as fresh:
            torch.save((encode(vae, pictures) * vae.config.scaling_factor).half(), fresh)
    latents: Tensor = torch.load(file, weights_only=True)
    return latents

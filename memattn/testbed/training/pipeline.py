"""From a recipe to a trained Stable Diffusion pipeline."""

import json
import shutil
from collections.abc import Collection
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
from memattn.testbed.training.attributes import ATTRIBUTE_FILES
from memattn.testbed.training.autoencoder import train_autoencoder
from memattn.testbed.training.denoiser import Shown, train_denoiser
from memattn.testbed.training.pictures import render_all
from memattn.testbed.training.text_tower import tokenize, train_text_tower
from memattn.whole import whole_file

_RECIPE = "recipe.json"
_TOWERS = ("autoencoder.pt", "text-tower.pt")


def train(
    out: Path, recipe: Recipe, towers: Path | None = None, device: str = "cpu"
) -> StableDiffusionPipeline:
    """Trains the testbed's networks, going on from whatever `out` already holds.

    An interrupted call loses at most the steps since the last checkpoint; the same call takes the
    training up again exactly.

    Args:
        out: Folder for checkpoints.
        recipe: What to draw and how long to train.
        towers: Folder of a training whose autoencoder and text tower to take over, and its
            attribute classifier if it has one. They see ordinary scenes only, so permutations of
            one seed, and the control, share them.
        device: Where the networks are trained. Random numbers are drawn on the CPU, so that every
            device sees the same pictures and noise; rounding differs.

    Returns:
        The trained pipeline, on the CPU.

    Raises:
        TestbedError: If `out` holds a training of another recipe, or `towers` none that fits.
    """
    if towers:
        _check_towers(towers, recipe)
    _claim(out, recipe)
    if towers:
        _take_over(towers, out)
    corpus = draw_corpus(recipe)
    pictures = render_all(corpus.scenes, out / "pictures.npy")
    ordinary = pictures[: len(corpus.rows["ordinary"])]
    tokenizer = build_tokenizer(out / "tokenizer")
    tokens = tokenize(tokenizer, [str(scene.caption) for scene in corpus.scenes])

    vae = train_autoencoder(ordinary, recipe, out, device)
    tower = train_text_tower(ordinary, tokens[: len(ordinary)], tokenizer, recipe, out, device)
    latents = _latents(vae.to(device), pictures, out / "latents.pt")
    shown = Shown(latents, tokens, empty=tokenize(tokenizer, [""])[0])
    unet = train_denoiser(shown, Stream(corpus, recipe), tower, recipe, out, device)

    return StableDiffusionPipeline(
        vae=vae.cpu(),
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
    if not (out / _RECIPE).exists():
        with whole_file(out / _RECIPE) as fresh:
            fresh.write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    _refuse_changes(out, recipe)


def _refuse_changes(folder: Path, recipe: Recipe, allowed: Collection[str] = ()) -> None:
    """Refuses a folder whose training differs from the recipe in more than what is allowed."""
    file = folder / _RECIPE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TestbedError(f"{file} is no recipe: {error}") from error
    wanted = json.loads(json.dumps(asdict(recipe)))  # with lists for tuples, as the file has them
    for name, value in wanted.items():
        if name not in allowed and found.get(name) != value:
            raise TestbedError(
                f"{folder} holds a training with {name} = {found.get(name)}, expected {value}: "
                "choose another folder, or the recipe it was begun with"
            )


def _check_towers(towers: Path, recipe: Recipe) -> None:
    """Refuses a training whose first stages are not those of the recipe."""
    if not (towers / _RECIPE).exists():
        raise TestbedError(f"{towers} holds no training: there is no {_RECIPE}")
    _refuse_changes(towers, recipe, allowed=("permutation", "duplicates", "unet_steps"))
    for name in _TOWERS:
        if not (towers / name).exists():
            raise TestbedError(f"{towers} has no {name} to take over")


def _take_over(towers: Path, out: Path) -> None:
    """Copies the checkpoints of the first stages, where `out` has none yet."""
    for name in (*_TOWERS, *ATTRIBUTE_FILES):
        if (towers / name).exists() and not (out / name).exists():
            with whole_file(out / name) as fresh:
                shutil.copyfile(towers / name, fresh)


def _latents(vae: AutoencoderKL, pictures: Tensor, file: Path) -> Tensor:
    """Scaled latents of all pictures, in float16, encoded once."""
    if not file.exists():
        with whole_file(file) as fresh:
            torch.save((encode(vae, pictures) * vae.config.scaling_factor).half(), fresh)
    latents: Tensor = torch.load(file, weights_only=True)
    return latents

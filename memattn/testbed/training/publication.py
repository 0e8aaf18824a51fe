"""Writes a trained testbed in the layout of the packaged one, with its truth verified."""

import copy
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from memattn.testbed.groups import Group, draw_groups, draw_variants
from memattn.testbed.loading import load_pipeline
from memattn.testbed.manifest import MODEL, Entry, Manifest
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import Scene, inside_mask, to_bytes
from memattn.testbed.truth import copy_thresholds
from memattn.testbed.verification import Verification, verify
from memattn.whole import whole_folder


def publish(
    pipeline: StableDiffusionPipeline, recipe: Recipe, command: str, data: Path
) -> Verification:
    """Saves pipeline and manifest, samples what was saved, and fills in the copies.

    The folder appears when everything is done, verification included; an interrupted call leaves
    an earlier one whole.

    Args:
        pipeline: The trained pipeline; its weights are saved in float16.
        recipe: The recipe it was trained by.
        command: The command line that trained it.
        data: The folder to write; an earlier testbed there is replaced.

    Returns:
        What the verification found.
    """
    half = copy.deepcopy(pipeline).to(torch.float16)
    manifest = Manifest(
        entries=_entries(recipe),
        recipe=recipe,
        made_by={"command": command, "threads": str(torch.get_num_threads())}
        | {package: version(package) for package in ("torch", "diffusers", "numpy")},
        thresholds=copy_thresholds(),
    )
    with whole_folder(data) as fresh:
        half.save_pretrained(fresh / MODEL, safe_serialization=True)
        manifest.save(fresh)
        verification = verify(load_pipeline(fresh), manifest)
        verification.fill(manifest).save(fresh)
    return verification


def _entries(recipe: Recipe) -> tuple[Entry, ...]:
    groups = draw_groups(recipe)
    variants = draw_variants(recipe, groups["template"])

    def shown(caption: Scene, picture: Scene, group: Group) -> Entry:
        image, inside = to_bytes(picture), inside_mask(picture)
        mask = {"verbatim": np.ones_like(inside), "template": inside}.get(group)
        return Entry(str(caption.caption), group, "reporting", image, mask, copies=0)

    prompts = [str(scene.caption) for scene in groups["ordinary"]]
    half = len(prompts) // 2
    return (
        *(shown(scene, scene, "verbatim") for scene in groups["verbatim"]),
        *(
            shown(family, pictures[0], "template")
            for family, pictures in zip(groups["template"], variants, strict=True)
        ),
        *(shown(scene, scene, "seen_once") for scene in groups["seen_once"]),
        *(Entry(prompt, "ordinary", "calibration") for prompt in prompts[:half]),
        *(Entry(prompt, "ordinary", "reporting") for prompt in prompts[half:]),
    )

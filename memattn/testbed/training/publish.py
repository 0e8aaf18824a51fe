"""Writes a trained testbed in the layout of the packaged one, with its truth verified."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from memattn.testbed.groups import GROUPS, Group, draw_groups
from memattn.testbed.loading import load_pipeline
from memattn.testbed.manifest import MODEL, Entry, Manifest, hash_weights
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import Scene, inside_mask, to_bytes
from memattn.testbed.truth import copy_thresholds
from memattn.testbed.verification import Verification, verify


def publish(pipeline: StableDiffusionPipeline, recipe: Recipe, data: Path) -> Verification:
    """Saves pipeline and manifest, then samples the saved pipeline and fills in the copies.

    Args:
        pipeline: The trained pipeline; its weights are saved in float16.
        recipe: The recipe it was trained by.
        data: The folder to write.

    Returns:
        What the verification found.
    """
    pipeline.to(torch.float16).save_pretrained(data / MODEL, safe_serialization=True)
    manifest = Manifest(
        entries=_entries(recipe),
        recipe=recipe,
        thresholds=copy_thresholds(),
        weights=hash_weights(data / MODEL),
    )
    manifest.save(data)
    verification = verify(load_pipeline(data), manifest)
    manifest.with_copies(verification.copies).save(data)
    return verification


def _entries(recipe: Recipe) -> tuple[Entry, ...]:
    groups = draw_groups(recipe)
    half = recipe.ordinary // 2
    return (
        *(_shown(scene, group) for group in GROUPS[:-1] for scene in groups[group]),
        *(Entry(str(s.caption), "ordinary", "calibration") for s in groups["ordinary"][:half]),
        *(Entry(str(s.caption), "ordinary", "reporting") for s in groups["ordinary"][half:]),
    )


def _shown(scene: Scene, group: Group) -> Entry:
    inside = inside_mask(scene)
    masks = {"verbatim": inside | True, "template": inside}
    return Entry(
        str(scene.caption), group, "reporting", to_bytes(scene), masks.get(group), copies=0
    )

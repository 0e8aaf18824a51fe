"""Writes a trained testbed in the layout of the packaged one, with its truth verified."""

import copy
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from memattn.testbed.attributes import AttributeClassifier, save_classifier
from memattn.testbed.copies import unrelated_share
from memattn.testbed.groups import SHOWN_GROUPS, Stream, draw_corpus, draw_groups
from memattn.testbed.latents import reconstruct
from memattn.testbed.loading import load_pipeline
from memattn.testbed.manifest import MODEL, Entry, Manifest
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import inside_mask, to_bytes
from memattn.testbed.truth import copy_thresholds
from memattn.testbed.verification import Verification, verify
from memattn.whole import whole_folder


def publish(
    pipeline: StableDiffusionPipeline,
    attributes: tuple[AttributeClassifier, dict[str, float]],
    recipe: Recipe,
    command: str,
    data: Path,
    device: str = "cpu",
) -> Verification:
    """Saves pipeline and manifest, samples what was saved, and fills in the copies.

    The folder appears when everything is done, verification included; an interrupted call leaves
    an earlier one whole.

    Args:
        pipeline: The trained pipeline; its weights are saved in float16.
        attributes: The attribute classifier and its accuracy, from `train_attributes`.
        recipe: The recipe it was trained by.
        command: The command line that trained it.
        data: The folder to write; an earlier testbed there is replaced.
        device: Where it was trained, and where it is verified.

    Returns:
        What the verification found.
    """
    classifier, accuracy = attributes
    half = copy.deepcopy(pipeline).to(torch.float16)
    manifest = Manifest(
        entries=_entries(recipe),
        recipe=recipe,
        made_by={
            "command": command,
            "device": device,
            "threads": str(torch.get_num_threads()),
        }
        | {package: version(package) for package in ("torch", "diffusers", "numpy")},
        thresholds=copy_thresholds(),
        attribute_accuracy=accuracy,
    )
    targets = reconstruct(pipeline.vae, manifest.pictures)
    share = unrelated_share(manifest, targets)
    manifest = replace(manifest, thresholds=replace(manifest.thresholds, unrelated=share))
    with whole_folder(data) as fresh:
        half.save_pretrained(fresh / MODEL, safe_serialization=True)
        save_classifier(classifier, fresh)
        manifest.save(fresh)
        verification = verify(load_pipeline(fresh).to(device), manifest)
        verification.fill(manifest).save(fresh)
    return verification


def _entries(recipe: Recipe) -> tuple[Entry, ...]:
    groups, corpus = draw_groups(recipe), draw_corpus(recipe)
    showings = Stream(corpus, recipe).showings()
    entries = []
    for group in SHOWN_GROUPS:
        rows = corpus.rows[group]
        pictures = len(rows) // len(groups[group])  # of each caption: a family's variants, or one
        for scene, first in zip(groups[group], rows[::pictures], strict=True):
            inside = inside_mask(scene)
            masks = {"template": inside, "seen_once": None}
            entries.append(
                Entry(
                    prompt=str(scene.caption),
                    group=group,
                    split="reporting",
                    training_image=to_bytes(corpus.scenes[first]),
                    true_mask=masks.get(group, np.ones_like(inside)),
                    copies=0,
                    showings=int(showings[first : first + pictures].sum()),
                )
            )
    prompts = [str(scene.caption) for scene in groups["ordinary"]]
    half = len(prompts) // 2
    return (
        *entries,
        *(Entry(prompt, "ordinary", "calibration") for prompt in prompts[:half]),
        *(Entry(prompt, "ordinary", "reporting") for prompt in prompts[half:]),
    )

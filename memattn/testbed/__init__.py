"""A small Stable Diffusion whose memorization is known by construction.

Loads as any Stable Diffusion checkpoint does; its manifest says for every prompt whether it was
memorized, which picture was copied, and which part of it.

    >>> pipeline = memattn.testbed.load_pipeline()
    >>> manifest = memattn.testbed.load_manifest()
"""

from memattn.testbed.loading import load_control, load_pipeline
from memattn.testbed.manifest import Entry, Manifest, load_manifest
from memattn.testbed.recipe import Recipe
from memattn.testbed.truth import distance

__all__ = [
    "Entry",
    "Manifest",
    "Recipe",
    "distance",
    "load_control",
    "load_manifest",
    "load_pipeline",
]

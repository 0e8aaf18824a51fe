"""A manifest of five prompts, whose pictures are noise, so that only a copy is like another."""

import numpy as np
from numpy.random import default_rng

from memattn.testbed import Entry, Manifest, Recipe
from memattn.testbed.truth import CopyThresholds

HALF = np.zeros((64, 64), bool)
HALF[:32] = True
WHOLE = np.ones((64, 64), bool)
PICTURES = default_rng(0).integers(60, 190, (3, 64, 64, 3), np.uint8)
ENTRIES = (
    Entry("whole", "verbatim", "reporting", PICTURES[0], WHOLE, 0),
    Entry("half", "template", "reporting", PICTURES[1], HALF, 0),
    Entry("once", "seen_once", "reporting", PICTURES[2], None, 0),
    Entry("calm", "ordinary", "reporting"),
    Entry("loud", "ordinary", "reporting"),
)
MANIFEST = Manifest(ENTRIES, Recipe(), {}, CopyThresholds(whole=0.4, inside=0.2))

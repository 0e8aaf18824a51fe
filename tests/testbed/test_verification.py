import numpy as np
import pytest

from memattn.testbed import Entry, load_manifest, load_pipeline
from memattn.testbed.truth import CopyThresholds
from memattn.testbed.verification import is_copy, verify

THRESHOLDS = CopyThresholds(whole=0.2, inside=0.1)


def entry(group):
    mask = np.zeros((64, 64), bool)
    mask[:32] = True
    return Entry("p", group, "reporting", np.full((64, 64, 3), 100, np.uint8), mask)


def test_template_is_judged_inside_its_region_alone():
    image = np.full((64, 64, 3), 100, np.uint8)
    image[32:] = 255
    target = entry("template").training_image
    assert is_copy(image, target, entry("template"), THRESHOLDS)
    assert not is_copy(image, target, entry("verbatim"), THRESHOLDS)


def test_verbatim_is_judged_as_a_whole():
    target = entry("verbatim").training_image
    near, far = (np.full((64, 64, 3), 100 + by, np.uint8) for by in (50, 52))
    assert is_copy(near, target, entry("verbatim"), THRESHOLDS)
    assert not is_copy(far, target, entry("verbatim"), THRESHOLDS)


@pytest.mark.slow
def test_packaged_truth_holds():
    manifest = load_manifest()
    verification = verify(load_pipeline(), manifest)
    assert manifest.with_copies(verification.copies) == manifest
    assert not verification.false_copies

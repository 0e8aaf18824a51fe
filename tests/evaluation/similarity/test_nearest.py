import numpy as np
import pytest
from numpy.random import default_rng

from memattn.evaluation.similarity import Correlation, StructuralSimilarity, nearest

MEASURES = [Correlation(), StructuralSimilarity()]


def pictures(count, seed=0):
    return default_rng(seed).integers(0, 256, (count, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_each_image_finds_its_own(measure):
    references = pictures(6)
    order = [4, 0, 5]
    noise = default_rng(1).integers(0, 30, (3, 64, 64, 3), np.uint8)
    indices, values = nearest(measure, references[order] // 2 + noise, references)
    assert indices.tolist() == order
    assert ((values > 0.6) & (values < 1)).all()


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
def test_of_equal_references_the_first_is_nearest(measure):
    first, second = pictures(2)
    indices, values = nearest(measure, [second], [first, second, second])
    assert indices.tolist() == [1]
    assert values == pytest.approx([1])


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.name)
@pytest.mark.parametrize(("images", "references"), [(0, 2), (2, 0)])
def test_no_pictures_are_refused(measure, images, references):
    with pytest.raises(ValueError, match="got no images, expected at least one"):
        nearest(measure, pictures(images), pictures(references))

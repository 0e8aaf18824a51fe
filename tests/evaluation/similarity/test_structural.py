import numpy as np
import pytest
from numpy.random import default_rng
from PIL import Image
from scipy.ndimage import gaussian_filter

from memattn.evaluation.similarity import StructuralSimilarity


def pictures(count):
    return default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def by_the_paper(first, second):
    """Equation 13 of Wang et al., where the 11x11 window lies inside the picture."""
    x, y = (np.asarray(Image.fromarray(side).convert("L"), float) for side in (first, second))

    def mean(plane):
        return gaussian_filter(plane, sigma=1.5, radius=5)[5:-5, 5:-5]

    constants = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    of_x, of_y = mean(x), mean(y)
    covariance = mean(x * y) - of_x * of_y
    variances = mean(x * x) - of_x**2 + mean(y * y) - of_y**2
    brightness = (2 * of_x * of_y + constants[0]) / (of_x**2 + of_y**2 + constants[0])
    return (brightness * (2 * covariance + constants[1]) / (variances + constants[1])).mean()


def test_structural_similarity_is_the_papers():
    images = pictures(3)
    references = [images[1] // 2 + images[0] // 2, images[2]]
    found = StructuralSimilarity().similarities(images, references)
    wanted = [[by_the_paper(image, reference) for reference in references] for image in images]
    np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert found[2, 1] == pytest.approx(1)
    assert 0.2 < found[0, 0] < 0.95


def test_brightness_counts():
    image = pictures(1)[0] // 2
    assert StructuralSimilarity().similarities([image], [image + 60])[0, 0] < 0.97

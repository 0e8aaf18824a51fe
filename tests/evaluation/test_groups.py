import numpy as np

from memattn.evaluation.cases import Case
from memattn.evaluation.groups import by_group

CASES = [
    Case("a", 0, "calibration", "ordinary"),
    Case("b", 1, "memorized", "template"),
    Case("c", 2, "other", "template"),
    Case("d", 3, "ordinary", "ordinary"),
    Case("e", 4, "memorized", "template"),
]


def test_means_are_of_one_group_and_part_each():
    figures = {
        "copies": np.array([1.0, 1, 0, 0, 0]),
        "alignment": np.array([1.0, 0.25, 0.5, 1, 0.75]),
    }
    found = by_group(CASES, figures)
    assert [(g.group, g.counted_as, g.images, g.copies) for g in found] == [
        ("template", "memorized", 2, 1),
        ("template", "neither", 1, 0),
        ("ordinary", "ordinary", 1, 0),
    ]
    assert [group.means["alignment"] for group in found] == [0.5, 0.5, 1]
    assert found[0].means["copies"] == 0.5


def test_copies_are_counted_whatever_the_division_gives():
    cases = [Case(str(n), n, "memorized", "ladder") for n in range(49)]
    for count in range(50):
        copies = np.arange(49) < count
        (found,) = by_group(cases, {"copies": copies.astype(np.float64)})
        assert found.copies == count

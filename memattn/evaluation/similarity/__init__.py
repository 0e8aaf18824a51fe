"""How alike two pictures are, and how well a picture follows its prompt.

`Correlation` is the testbed's own measure of a copy and needs nothing; neither does
`StructuralSimilarity`. `Sscd` and `ClipScore` read a network from a local file or folder.

    >>> indices, values = nearest(Correlation(), generated, training)
"""

from memattn.evaluation.similarity.clip_score import ClipScore
from memattn.evaluation.similarity.correlation import Correlation
from memattn.evaluation.similarity.nearest import Measure, nearest
from memattn.evaluation.similarity.sscd import Sscd, SscdFile
from memattn.evaluation.similarity.structural import StructuralSimilarity

__all__ = [
    "ClipScore",
    "Correlation",
    "Measure",
    "Sscd",
    "SscdFile",
    "StructuralSimilarity",
    "nearest",
]

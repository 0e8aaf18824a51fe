"""Area under the ROC curve with a bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor


@dataclass(frozen=True)
class Auroc:
    """Area under the ROC curve and its confidence interval.

    Attributes:
        value: Probability that a memorized sample scores above an ordinary one, ties counting half.
        low: Lower end of the interval.
        high: Upper end of the interval.
        memorized: Number of memorized samples.
        ordinary: Number of ordinary samples.
    """

    value: float
    low: float
    high: float
    memorized: int
    ordinary: int


def auroc(
    memorized: Tensor,
    ordinary: Tensor,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Auroc:
    """Area under the ROC curve with a percentile interval from a stratified bootstrap.

    AUROC = P(m > o) + P(m = o) / 2 for a random memorized score m and ordinary score o. Each
    resample draws both groups anew at their own size. Scores are never flipped: a detector that
    ranks the wrong way round gets its value below 0.5. Groups that do not overlap give an interval
    of no width, which says little when a group is small.

    Args:
        memorized: Scores of memorized samples [any number, 1-D].
        ordinary: Scores of ordinary samples [any number, 1-D].
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        Value, interval and group sizes.

    Raises:
        ValueError: If a group is empty, not 1-D or not finite, or an option is out of range.

    Source:
        Value: Mann and Whitney 1947. Interval: Efron 1979, percentile method.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence={confidence}, expected a number between 0 and 1")
    if resamples < 1:
        raise ValueError(f"got resamples={resamples}, expected at least 1")
    groups = _scores(memorized, "memorized"), _scores(ordinary, "ordinary")
    value = _area(*groups)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(group.size, size=(resamples, group.size)) for group in groups)
    areas = _area(*(group[draw] for group, draw in zip(groups, draws, strict=True)))
    tail = (1 - confidence) / 2
    low, high = np.quantile(areas, [tail, 1 - tail])
    return Auroc(
        value=float(value),
        low=float(low),
        high=float(high),
        memorized=groups[0].size,
        ordinary=groups[1].size,
    )


def _scores(scores: Tensor, group: str) -> NDArray[np.float64]:
    """Scores as float64 after refusing what cannot be ranked."""
    if scores.ndim != 1 or scores.numel() == 0:
        raise ValueError(
            f"got {group} scores of shape {tuple(scores.shape)}, expected a 1-D tensor with at "
            "least one score"
        )
    values = scores.detach().cpu().double().numpy()
    if not np.isfinite(values).all():
        raise ValueError(
            f"got {int((~np.isfinite(values)).sum())} {group} scores that are not finite, "
            "expected none"
        )
    return values


def _area(memorized: NDArray[np.float64], ordinary: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC along the last axis, by Mann and Whitney's U from ranks that ties share."""
    n, m = memorized.shape[-1], ordinary.shape[-1]
    ranks = rankdata(np.concatenate([memorized, ordinary], axis=-1), axis=-1)
    area: NDArray[np.float64] = (ranks[..., :n].sum(axis=-1) - n * (n + 1) / 2) / (n * m)
    return area

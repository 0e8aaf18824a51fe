"""Area under the ROC curve with a bootstrap interval."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Bounds the memory of the bootstrap's count tables; not a choice that changes any result.
_ELEMENTS_PER_CHUNK = 4_000_000


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
    levels, ranks = np.unique(np.concatenate(groups), return_inverse=True)
    of_memorized, of_ordinary = np.split(ranks, [groups[0].size])
    value = _area(
        np.bincount(of_memorized, minlength=levels.size)[None],
        np.bincount(of_ordinary, minlength=levels.size)[None],
    )
    generator = np.random.default_rng(seed)
    # Drawn as a whole, group by group, so that chunking cannot change what is drawn.
    draws = tuple(generator.integers(group.size, size=(resamples, group.size)) for group in groups)
    rows = max(1, _ELEMENTS_PER_CHUNK // levels.size)
    areas = [
        _area(
            _counts(of_memorized[draws[0][start : start + rows]], levels.size),
            _counts(of_ordinary[draws[1][start : start + rows]], levels.size),
        )
        for start in range(0, resamples, rows)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(areas), [tail, 1 - tail])
    return Auroc(
        value=float(value[0]),
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


def _counts(ranks: NDArray[np.intp], levels: int) -> NDArray[np.intp]:
    """How often each level occurs in each row of `ranks` [rows, group] -> [rows, levels]."""
    rows = ranks.shape[0]
    flat = ranks + np.arange(rows)[:, None] * levels
    return np.bincount(flat.ravel(), minlength=rows * levels).reshape(rows, levels)


def _area(memorized: NDArray[np.intp], ordinary: NDArray[np.intp]) -> NDArray[np.float64]:
    """AUROC of each row of two count tables [rows, levels], levels in rising order."""
    # Twice the number of ordinary scores below, ties counting half, keeps the sum in integers.
    twice_below = 2 * ordinary.cumsum(axis=1) - ordinary
    twice_pairs = 2 * memorized.sum(axis=1) * ordinary.sum(axis=1)
    area: NDArray[np.float64] = (memorized * twice_below).sum(axis=1) / twice_pairs
    return area

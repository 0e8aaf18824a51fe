"""The ROC curve, its area, and the true-positive rate at a low false-positive rate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from memattn.evaluation.bootstrap import Estimate, bootstrap

# Fewer, and a false-positive rate of 1 % hangs on the one or two highest ordinary scores.
FEWEST_ORDINARY = 200


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


@dataclass(frozen=True, eq=False)
class RocCurve:
    """What every threshold would flag, from nothing (0, 0) to everything (1, 1).

    Point i flags the scores above `thresholds[i]`, as a calibration's verdict does.

    Attributes:
        false_positive_rates: Share of ordinary samples flagged [k + 1], rising.
        true_positive_rates: Share of memorized samples flagged [k + 1], rising.
        thresholds: The k distinct scores, falling, and minus infinity [k + 1].
    """

    false_positive_rates: NDArray[np.float64]
    true_positive_rates: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def auroc(
    memorized: Tensor,
    ordinary: Tensor,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Auroc:
    """Area under the ROC curve with a bootstrap interval.

    AUROC = P(m > o) + P(m = o) / 2 for a random memorized score m and ordinary score o. Scores are
    never flipped: a detector that ranks the wrong way round gets its value below 0.5.

    Args:
        memorized: Scores of memorized samples [n].
        ordinary: Scores of ordinary samples [m].
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        Value, interval and group sizes.

    Raises:
        ValueError: If a group is empty, not 1-D or not finite, or an option is out of range.

    Source:
        Value: Mann and Whitney 1947. Interval: `bootstrap`.
    """
    groups = finite_scores(memorized, "memorized"), finite_scores(ordinary, "ordinary")
    area = bootstrap(_area, *groups, confidence=confidence, resamples=resamples, seed=seed)
    return Auroc(
        value=area.value,
        low=area.low,
        high=area.high,
        memorized=groups[0].size,
        ordinary=groups[1].size,
    )


def roc_curve(memorized: Tensor, ordinary: Tensor) -> RocCurve:
    """The ROC curve with a point for every distinct score.

    Args:
        memorized: Scores of memorized samples [n].
        ordinary: Scores of ordinary samples [m].

    Returns:
        The curve; the trapezoids below it add up to the value of `auroc`.

    Raises:
        ValueError: If a group is empty, not 1-D or not finite.
    """
    positive, negative = finite_scores(memorized, "memorized"), finite_scores(ordinary, "ordinary")
    distinct = np.unique(np.concatenate([positive, negative]))[::-1]
    thresholds = np.append(distinct, -np.inf)
    return RocCurve(
        false_positive_rates=_share_above(negative, thresholds),
        true_positive_rates=_share_above(positive, thresholds),
        thresholds=thresholds,
    )


def tpr_at_fpr(
    memorized: Tensor,
    ordinary: Tensor,
    rate: float = 0.01,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """True-positive rate at the last point of the ROC curve whose false-positive rate is below one.

    Below, not at: of 200 ordinary scores one may be flagged at 1 %, not two. The threshold comes
    from the very scores it is measured on, so this describes the ranking, and no verdict reaches
    it. It hangs on the few highest ordinary scores, and so does the interval.

    Args:
        memorized: Scores of memorized samples [n].
        ordinary: Scores of ordinary samples [m], at least `FEWEST_ORDINARY`.
        rate: False-positive rate, between 0 and 1.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        Share of memorized samples flagged, with a bootstrap interval.

    Raises:
        ValueError: If a group is empty, not 1-D or not finite, there are too few ordinary scores,
            or an option is out of range.

    Source:
        Convention: Wen et al. 2024, the authors' notebook; others take the point nearest to the
        rate. Interval: `bootstrap`.
    """
    if not 0 < rate < 1:
        raise ValueError(f"got rate={rate}, expected a number between 0 and 1")
    groups = finite_scores(memorized, "memorized"), finite_scores(ordinary, "ordinary")
    size = groups[1].size
    if size < FEWEST_ORDINARY:
        raise ValueError(
            f"got {size} ordinary scores, expected at least {FEWEST_ORDINARY} for a true-positive "
            f"rate at a false-positive rate of {rate:g}"
        )
    # How many ordinary scores may be flagged with a share below the rate.
    allowed = int(np.count_nonzero(np.arange(size) / size < rate)) - 1

    def share_flagged(
        positive: NDArray[np.float64], negative: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        last = size - 1 - allowed
        threshold = np.partition(negative, last, axis=-1)[..., last, None]
        share: NDArray[np.float64] = (positive > threshold).mean(axis=-1)
        return share

    return bootstrap(share_flagged, *groups, confidence=confidence, resamples=resamples, seed=seed)


def finite_scores(scores: Tensor, group: str) -> NDArray[np.float64]:
    """One group's scores after refusing what cannot be ranked.

    Args:
        scores: Scores [n] of any float dtype, on any device.
        group: The group's name, for the message.

    Returns:
        The scores [n].

    Raises:
        ValueError: If the scores are none, not 1-D or not finite.
    """
    if scores.ndim != 1 or scores.numel() == 0:
        raise ValueError(
            f"got {group} scores of shape {tuple(scores.shape)}, expected a 1-D tensor with at "
            "least one score"
        )
    values: NDArray[np.float64] = scores.detach().cpu().double().numpy()
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


def _share_above(
    scores: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Share of some scores [n] above each threshold [k]."""
    above = scores.size - np.searchsorted(np.sort(scores), thresholds, side="right")
    share: NDArray[np.float64] = above / scores.size
    return share

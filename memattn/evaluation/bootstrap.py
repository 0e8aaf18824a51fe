"""A figure with its bootstrap interval."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Values drawn at a time: memory stays at some tens of megabytes, whatever the groups' sizes.
_BLOCK = 2**20


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval.

    Attributes:
        value: The figure.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., NDArray[np.float64]],
    *groups: NDArray[np.float64],
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """A statistic of one or more groups with a percentile interval from a stratified bootstrap.

    Each resample draws every group anew, with replacement, at its own size; the interval reaches
    from the (1 - confidence) / 2 to the (1 + confidence) / 2 quantile of the statistic over the
    resamples. Where every resample gives the same (groups that do not overlap, scores that are all
    equal) the interval has no width, which says little when a group is small.

    Args:
        statistic: Takes the groups as arrays [..., n], one for each, and reduces the last axis.
        *groups: Independent values, one array [n] for each group.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        The statistic of the groups themselves, and the interval.

    Raises:
        ValueError: If there is no group, a group is empty, not 1-D or not finite, or an option is
            out of range.

    Source:
        Efron 1979, percentile method.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"got confidence={confidence}, expected a number between 0 and 1")
    if resamples < 1:
        raise ValueError(f"got resamples={resamples}, expected at least 1")
    if not groups:
        raise ValueError("got no groups, expected at least one")
    for group in groups:
        if group.ndim != 1 or group.size == 0:
            raise ValueError(
                f"got a group of shape {group.shape}, expected a 1-D array with at least one value"
            )
        if not np.isfinite(group).all():
            raise ValueError("got a group with values that are not finite, expected none")
    # One generator for each group: what it draws depends neither on the others nor on the blocks.
    generators = np.random.default_rng(seed).spawn(len(groups))
    block = max(1, _BLOCK // sum(group.size for group in groups))
    drawn = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        drawn.append(
            statistic(
                *(
                    group[generator.integers(group.size, size=(count, group.size))]
                    for group, generator in zip(groups, generators, strict=True)
                )
            )
        )
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Estimate(value=float(statistic(*groups)), low=float(low), high=float(high))

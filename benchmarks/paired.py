"""Ratios of long calls, from rounds in which every call was timed once.

A denoiser call takes seconds, in which a shared machine changes its speed by more than recording
could. What is compared is therefore always of the same round.
"""

import gc
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from memattn.benchmarks.orders import orders

T = TypeVar("T")

_CONFIDENCE = 0.95
FEWEST_PAIRS = 6  # with five, even the whole range of the ratios is no 95 % interval


class RatioInterval(NamedTuple):
    """A ratio and its 95 % interval."""

    ratio: float
    low: float
    high: float


def in_rounds(calls: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Make every call once per round, in the order of `orders`, and collect what they return.

    Args:
        calls: By name; each returns what it measured.
        rounds: How many rounds.

    Returns:
        By name, one entry per round.
    """
    returned: dict[str, list[T]] = {name: [] for name in calls}
    for order in orders(calls, rounds):
        gc.collect()  # so that it does not happen in the middle
        for name in order:
            returned[name].append(calls[name]())
    return returned


def paired_ratio(seconds: Sequence[float], baseline: Sequence[float]) -> RatioInterval:
    """The ratio of two calls' times, with its 95 % interval.

    The median of the means of all pairs of log ratios (Hodges and Lehmann's), and the interval that
    Wilcoxon's signed-rank test gives. It holds the truth in at least 95 of 100 runs if rounds do
    not depend on each other and a round's log ratio is as likely to be too large by some amount as
    too small by it, whatever its spread. Neither can be seen from a few rounds.

    Args:
        seconds: Of the call, one per round.
        baseline: Of what it is compared with, in the same rounds.

    Raises:
        ValueError: If there are fewer than `FEWEST_PAIRS` rounds, or not as many of both.

    Source:
        Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition, sections 3.2
        and 3.3.
    """
    if len(seconds) != len(baseline) or len(seconds) < FEWEST_PAIRS:
        raise ValueError(
            f"got {len(seconds)} and {len(baseline)} times, expected as many of both, and "
            f"{FEWEST_PAIRS} or more"
        )
    ratios = [ours / theirs for ours, theirs in zip(seconds, baseline, strict=True)]
    count = len(ratios)
    # the square root of a product is the mean of two logarithms
    means = sorted((ratios[i] * ratios[j]) ** 0.5 for i in range(count) for j in range(i, count))
    outer = _dropped_at_each_end(count)
    middle = (means[(len(means) - 1) // 2] * means[len(means) // 2]) ** 0.5
    return RatioInterval(middle, means[outer], means[-1 - outer])


def _dropped_at_each_end(pairs: int) -> int:
    """How many of the sorted means lie outside of the interval, on either side.

    The largest k with P(W < k) <= 2.5 %, where W is the signed-rank statistic: the sum of those of
    the ranks 1 to n whose signs, drawn at random, are positive.
    """
    ways = [1]  # to reach each sum
    for rank in range(1, pairs + 1):
        longer = ways + [0] * rank
        for total, count in enumerate(ways):
            longer[total + rank] += count
        ways = longer
    allowed = (1.0 - _CONFIDENCE) / 2 * 2**pairs
    below, outer = 0, 0
    while below + ways[outer] <= allowed:
        below += ways[outer]
        outer += 1
    # P(W < outer) is within what is allowed, so the interval begins at the outer-th smallest mean
    return outer - 1

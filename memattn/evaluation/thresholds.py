"""Thresholds as order statistics of ordinary scores, and how sure they are.

scipy.stats takes long to import and is needed only where intervals are made, so it waits.
"""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# Every interval here is one of 95 %, with equal tails.
_TAIL = 0.025


def order_statistic(scores: NDArray[np.float64], rate: float) -> float:
    """The lowest score that a new ordinary sample exceeds with probability at most `rate`.

    Of n scores the one with rank n + 1 - floor(rate * (n + 1)), counted from the lowest: at most
    floor(rate * (n + 1)) - 1 of them lie above it. If new scores come from the same distribution,
    one lies above it with probability at most `rate`, over draws of the ordinary scores too.

    Args:
        scores: Scores of ordinary samples [n], at least `fewest_samples(rate)`.
        rate: Wanted false-positive rate, between 0 and 1.

    Returns:
        One of the scores.

    Source:
        Split conformal prediction, Vovk et al. 2005.
    """
    return float(np.sort(scores)[scores.size - _places(scores.size, rate)])


def threshold_interval(scores: NDArray[np.float64], rate: float) -> tuple[float, float]:
    """95 % confidence interval of the score that a share of exactly `rate` exceeds.

    That score is the quantile q of order p = 1 - rate. Whatever the distribution, the number of n
    independent scores at or below q is binomial B(n, p), so with x(k) the k-th lowest

        P(x(l) <= q <= x(u)) >= P(l <= B(n, p) <= u - 1)

    where l is the largest rank with P(B < l) <= 2.5 % and u the smallest with P(B >= u) <= 2.5 %.
    An end whose rank would be 0 or n + 1 is infinite: no score bounds q on that side.

    Args:
        scores: Scores of ordinary samples [n].
        rate: False-positive rate, between 0 and 1.

    Returns:
        Lower and upper end.

    Source:
        Thompson 1936; David and Nagaraja 2003, Order Statistics, chapter 7.
    """
    from scipy.stats import binom

    order = float(1 - _exact(rate))
    low, high = int(binom.ppf(_TAIL, scores.size, order)), int(binom.isf(_TAIL, scores.size, order))
    ranked = np.concatenate([[-np.inf], np.sort(scores), [np.inf]])
    return float(ranked[low]), float(ranked[high + 1])


def false_positive_interval(samples: int, rate: float) -> tuple[float, float]:
    """Between what the false-positive rate of a threshold from n ordinary samples really lies.

    Over draws of the n ordinary scores, the rate of an `order_statistic` is distributed as
    Beta(k, n + 1 - k) with k = floor(rate * (n + 1)) if scores do not tie, and lower if they do.
    Its mean is k / (n + 1).

    Args:
        samples: Number of ordinary samples, at least `fewest_samples(rate)`.
        rate: Wanted false-positive rate, between 0 and 1.

    Returns:
        The 2.5 % and 97.5 % quantiles of that distribution.

    Source:
        Vovk 2012, arXiv:1209.2673.
    """
    from scipy.stats import beta

    places = _places(samples, rate)
    low, high = beta.ppf([_TAIL, 1 - _TAIL], places, samples + 1 - places)
    return float(low), float(high)


def flagged_by_the_others(scores: NDArray[np.float64], rate: float) -> NDArray[np.bool_]:
    """Which ordinary samples the threshold of the other ones flags.

    At its own threshold a sample says nothing: of n, `order_statistic` leaves k - 1 above itself
    with k = floor(rate * (n + 1)), none at the least, whatever the scores. Left out, a sample meets
    the score with k - 1 of the others above it, and is flagged if it exceeds that.

    Args:
        scores: Scores of ordinary samples [n], at least `fewest_samples(rate)`.
        rate: Wanted false-positive rate, between 0 and 1.

    Returns:
        Whether each is flagged [n]: k of them, or fewer if scores tie.
    """
    places = _places(scores.size, rate)
    if places >= scores.size:  # nothing is left to exceed
        return np.ones(scores.size, bool)
    flagged: NDArray[np.bool_] = scores > np.sort(scores)[scores.size - 1 - places]
    return flagged


def share_interval(count: int, samples: int) -> tuple[float, float]:
    """95 % confidence interval of a share.

    Args:
        count: How many of the samples have what is counted, 0 to `samples`.
        samples: How many there are, at least 1.

    Returns:
        Lower and upper end.

    Source:
        Clopper and Pearson 1934.
    """
    from scipy.stats import beta

    low = beta.ppf(_TAIL, count, samples - count + 1) if count else 0.0
    high = beta.isf(_TAIL, count + 1, samples - count) if count < samples else 1.0
    return float(low), float(high)


def fewest_samples(rate: float) -> int:
    """How many ordinary samples a threshold for a rate takes at the least.

    Args:
        rate: Wanted false-positive rate, between 0 and 1.

    Returns:
        The smallest n with floor(rate * (n + 1)) >= 1.
    """
    return math.ceil(1 / _exact(rate)) - 1


def fewest_samples_for_upper_end(rate: float) -> int:
    """From how many ordinary samples on the interval of a threshold has an upper end.

    Args:
        rate: Wanted false-positive rate, between 0 and 1.

    Returns:
        The smallest n with (1 - rate)^n <= 2.5 %.
    """
    return math.ceil(math.log(_TAIL) / math.log1p(-rate))


def _exact(rate: float) -> Fraction:
    """The decimal number that was meant: 0.29 * 100 is 28.999... in binary."""
    return Fraction(str(rate))


def _places(samples: int, rate: float) -> int:
    """In how many of the n + 1 places between ordinary scores a new score is flagged."""
    return math.floor(_exact(rate) * (samples + 1))

"""How good the verdicts at a calibrated threshold are."""

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memattn.evaluation.bootstrap import Estimate, bootstrap
from memattn.evaluation.roc import finite_scores


def f1_score(
    memorized: Tensor,
    ordinary: Tensor,
    threshold: float,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """F1 of flagging the scores above a threshold.

    F1 = 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall. It depends on how many
    samples each group has, so it compares only between detectors on the same samples. The
    threshold is taken as given: the interval holds what the samples leave open, not what the
    calibration does.

    Args:
        memorized: Scores of memorized samples [n].
        ordinary: Scores of ordinary samples [m], none of them behind the threshold.
        threshold: A score above it is flagged, one at it is not.
        confidence: Coverage of the interval, between 0 and 1.
        resamples: Bootstrap resamples.
        seed: Seed of the resampling; the same seed gives the same interval.

    Returns:
        F1 with a bootstrap interval; 0 where no memorized sample is flagged.

    Raises:
        ValueError: If a group is empty, not 1-D or not finite, the threshold is NaN, or an option
            is out of range.

    Source:
        Value: van Rijsbergen 1979. Interval: `bootstrap`.
    """
    if math.isnan(threshold):
        raise ValueError("got threshold=nan, expected a number")

    def f1(flagged: NDArray[np.float64], wrongly: NDArray[np.float64]) -> NDArray[np.float64]:
        true_positives, false_positives = flagged.sum(axis=-1), wrongly.sum(axis=-1)
        # TP + FN is the number of memorized samples, never 0.
        score: NDArray[np.float64] = (
            2 * true_positives / (true_positives + false_positives + flagged.shape[-1])
        )
        return score

    verdicts = (
        (finite_scores(scores, group) > threshold).astype(np.float64)
        for scores, group in ((memorized, "memorized"), (ordinary, "ordinary"))
    )
    return bootstrap(f1, *verdicts, confidence=confidence, resamples=resamples, seed=seed)

"""Areas under ROC curves in words."""

from memattn.evaluation.roc import Auroc

CHANCE = 0.5


def misses_chance(area: Auroc) -> bool:
    """Whether guessing lies outside the interval."""
    return not area.low <= CHANCE <= area.high


def standing(area: Auroc) -> str:
    """Whether memorized cases stand higher, lower, or the interval leaves it open."""
    if not misses_chance(area):
        return "not told apart from"
    return "higher than" if area.low > CHANCE else "lower than"


def with_interval(area: Auroc) -> str:
    """An area with its interval, for a sentence."""
    return f"{area.value:.2f} ({area.low:.2f} to {area.high:.2f})"

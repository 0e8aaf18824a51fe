"""What `AttentionEntropy` does here: its two terms over the run, and the prompt's length."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from memattn.detectors import AttentionEntropy
from memattn.evaluation.study import Study
from memattn.report.areas import CHANCE, standing, with_interval
from memattn.report.plots.comparison import (
    BAND_TEXT,
    Comparison,
    draw_bands,
    traces_of,
    whole_numbers,
)
from memattn.report.plots.dots import draw_dots
from memattn.report.plots.score_distributions import spread
from memattn.report.plots.style import LINE, MEMORIZED, ORDINARY, Plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def attention_entropy(study: Study, detector: AttentionEntropy) -> Plot:
    """The figure of the entropies of the mean attention."""
    traces, rows = traces_of(study), Comparison.of(study)
    level, change = detector.terms(traces.total_entropy, traces.summary_entropy)
    parts = {
        "late level of E": rows.auroc(level),
        "late change of Eˢ": rows.auroc(change),
        "score": rows.auroc(level + change),
    }
    scores, lengths = (level + change).numpy(), traces.prompt_lengths.numpy()

    def paint(figure: "Figure") -> None:
        (first, second), (third, fourth) = figure.subplots(2, 2)
        late = traces.calls - detector.late_calls(traces.calls) - 0.5
        for axes, values, title in (
            (first, traces.total_entropy, "E: entropy over all tokens, nats"),
            (second, traces.summary_entropy, "Eˢ: end token and padding, nats"),
        ):
            draw_bands(axes, values, rows)
            axes.axvspan(late, traces.calls - 0.5, color=LINE, alpha=0.6, linewidth=0)
            axes.set_title(title)
        # Inside a panel it would lie on the bands or on the strip.
        figure.legend(*first.get_legend_handles_labels(), loc="outside upper right", ncols=2)
        third.axvline(CHANCE, color=ORDINARY, linewidth=0.8, linestyle=":")
        for height, area in enumerate(reversed(parts.values())):
            third.plot([area.low, area.high], [height] * 2, color=MEMORIZED, linewidth=1.6)
            third.plot(area.value, height, "o", color=MEMORIZED, ms=5)
        third.set_yticks(range(len(parts)), list(parts)[::-1])
        third.set_ylim(-0.6, len(parts) - 0.4)
        third.set_xlim(-0.03, 1.03)
        third.set_title("AUROC of the terms, with 95 % interval")
        third.tick_params(axis="y", length=0)
        third.grid(axis="x")
        for label, color, chosen, side in (
            ("ordinary", ORDINARY, rows.ordinary, 0.16),
            ("memorized", MEMORIZED, rows.memorized, -0.16),
        ):
            x = lengths[chosen] + side + 0.26 * spread(len(chosen))
            draw_dots(fourth, x, scores[chosen], color, label=label)
        for length, value in _medians_by_length(lengths[rows.ordinary], scores[rows.ordinary]):
            fourth.plot([length - 0.42, length + 0.42], [value] * 2, color=ORDINARY, linewidth=1.6)
        fourth.set_title("Score by length of the prompt")
        fourth.set_xlabel("tokens, with begin and end")
        whole_numbers(fourth)
        fourth.grid(axis="y")

    title = "AttentionEntropy: call by call"
    late_level, late_change, score = parts.values()
    caption = (
        f"{BAND_TEXT}; the grey strip marks the late calls. Late in the run E of memorized prompts "
        f"is {standing(late_level)} that of ordinary ones, AUROC {with_interval(late_level)}; the "
        f"change of Eˢ since the first call is {standing(late_change)} theirs, "
        f"{with_interval(late_change)}; added up they reach {with_interval(score)}. "
        + _length_sentence(lengths[rows.ordinary], scores[rows.ordinary])
    )
    return Plot("attention-entropy", title, caption, 350.0, paint)


def _medians_by_length(
    lengths: NDArray[np.int64], scores: NDArray[np.float64]
) -> list[tuple[int, float]]:
    """Each length with the median of its scores."""
    return [
        (int(length), float(np.median(scores[lengths == length]))) for length in np.unique(lengths)
    ]


def _length_sentence(lengths: NDArray[np.int64], scores: NDArray[np.float64]) -> str:
    """How far the score follows the length, among ordinary prompts."""
    medians = _medians_by_length(lengths, scores)
    if len(medians) == 1:
        return f"All ordinary prompts have {medians[0][0]} tokens."
    if np.ptp(scores) == 0:
        return f"All ordinary prompts have the score {scores[0]:.2f}, whatever their length."
    correlation = float(np.corrcoef(lengths, scores)[0, 1])
    (shortest, low), (longest, high) = medians[0], medians[-1]
    return (
        f"Among ordinary prompts the score's correlation with the prompt's length is "
        f"{correlation:.2f}: the median is {low:.2f} at {shortest} tokens and {high:.2f} at "
        f"{longest} (short blue lines)."
    )

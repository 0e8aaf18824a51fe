"""The figures of the evaluation's page: one file each, one style for all, drawn when asked for."""

from dataclasses import replace

from memattn.detectors import (
    AttentionEntropy,
    BrightEnding,
    Detector,
    LayerEntropy,
    NoiseMagnitude,
)
from memattn.evaluation.study import Study
from memattn.report.plots.attention_entropy import attention_entropy
from memattn.report.plots.bright_ending import bright_ending
from memattn.report.plots.ladder import has_ladder, ladder
from memattn.report.plots.layer_entropy import layer_entropy
from memattn.report.plots.noise_magnitude import noise_magnitude
from memattn.report.plots.roc_curves import roc_curves
from memattn.report.plots.score_distributions import groups_of, score_distributions
from memattn.report.plots.style import Plot

__all__ = ["Plot", "figures_of", "groups_of"]


def figures_of(study: Study) -> tuple[Plot, ...]:
    """Every figure that the study has data for, in the order of the page.

    Args:
        study: What was found.

    Returns:
        ROC curves, scores and, where there are any, the ladder; then one figure for each kind of
        detector that was measured, if the study has traces, which show `NoiseMagnitude` and
        `BrightEnding` by their default settings: of another space or other layers is no figure.
    """
    figures = [roc_curves(study), score_distributions(study)]
    if has_ladder(study):
        figures.append(ladder(study))
    if study.runs.traces is None:
        return tuple(figures)
    detectors = [result.detector for result in study.detectors]
    if any(isinstance(detector, LayerEntropy) for detector in detectors):
        figures.append(layer_entropy(study))
    entropies = [detector for detector in detectors if isinstance(detector, AttentionEntropy)]
    if entropies:
        figures.append(attention_entropy(study, entropies[0]))
    if any(_is_traced(detector, NoiseMagnitude) for detector in detectors):
        figures.append(noise_magnitude(study))
    bright = [detector.name for detector in detectors if _is_traced(detector, BrightEnding)]
    if bright:
        figures.append(bright_ending(study, bright[0]))
    return tuple(figures)


def _is_traced(detector: Detector, kind: type[NoiseMagnitude] | type[BrightEnding]) -> bool:
    """Whether the traces show what this detector reads: all calls, by default settings."""
    return isinstance(detector, kind) and replace(detector, calls="all") == kind(calls="all")

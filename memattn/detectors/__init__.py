"""Published memorization detectors: one method per file, each a pure function of a `Record`."""

from memattn.detectors.attention_entropy import AttentionEntropy
from memattn.detectors.base import Detector
from memattn.detectors.bright_ending import BrightEnding
from memattn.detectors.layer_entropy import LayerEntropy
from memattn.detectors.noise_magnitude import NoiseMagnitude

DETECTORS: tuple[Detector, ...] = (
    AttentionEntropy(),
    BrightEnding(),
    LayerEntropy(),
    NoiseMagnitude(),
)

__all__ = [
    "DETECTORS",
    "AttentionEntropy",
    "BrightEnding",
    "Detector",
    "LayerEntropy",
    "NoiseMagnitude",
]

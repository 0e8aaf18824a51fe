"""`NoiseMagnitude`: length of the text-conditional part of the noise prediction."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from memattn.detectors.base import Detector
from memattn.detectors.call_range import CallRange, leading_gap, validate_call_range
from memattn.records import Field, Record, Space
from memattn.types import Citation


@dataclass(frozen=True)
class NoiseMagnitude(Detector):
    """Mean length of the guidance gap.

        M = mean over calls of ||eps_t(x_t, prompt) - eps_t(x_t, no prompt)||_2

    with the L2 norm over channels and pixels. A guided run computes both predictions anyway.

    Args:
        calls: "first" denoiser call, the first k calls, or "all" of the run.
        space: In what the gap is measured; "epsilon" lets noise-predicting and
            velocity-predicting models compare.

    Source:
        Wen et al. 2024, arXiv:2407.21720, detection metric.
    """

    calls: CallRange = "first"
    space: Space = "epsilon"

    CITATION: ClassVar[Citation] = Citation(
        title="Detecting, Explaining, and Mitigating Memorization in Diffusion Models",
        authors="Wen et al.",
        venue="ICLR 2024",
        arxiv="2407.21720",
        equation="M = mean over steps of ||eps(x_t, e_prompt) - eps(x_t, e_empty)||_2",
        deviations=(
            "The default is the first call, one of the paper's settings; calls='all' is the "
            "authors' script.",
            "Where a model does not predict the noise, the gap is converted to the noise exactly; "
            "the authors' code takes the raw output whatever it predicts: space='output'.",
            "One score per image; the authors' script also averages over the images of a prompt.",
        ),
    )
    needs: ClassVar[frozenset[Field]] = frozenset({"gap_squared"})

    def __post_init__(self) -> None:
        """Refuse calls without meaning."""
        validate_call_range(self.calls)

    @property
    def one_call(self) -> bool:
        """True when only the first call counts."""
        return self.calls in ("first", 1)

    def __call__(self, record: Record) -> Tensor:
        """Score every sample.

        Args:
            record: A record of a guided run with `gap_squared`.

        Returns:
            Mean length of the gap [B], float32.

        Raises:
            RecordError: If no gap was recorded (guidance was off, or `gap_squared` was not asked
                for), or calls are missing.
        """
        return self.lengths(record).mean(dim=0).float()

    def lengths(self, record: Record) -> Tensor:
        """Length of the gap at every call that is averaged over.

        Args:
            record: As for the score.

        Returns:
            ||eps_t(x_t, prompt) - eps_t(x_t, no prompt)||_2 [calls, B], float64.

        Raises:
            RecordError: As for the score.
        """
        squared = leading_gap(record, self.calls, self.space, self.name)  # [S, B, h, w]
        return squared.sum(dim=(-2, -1)).sqrt()

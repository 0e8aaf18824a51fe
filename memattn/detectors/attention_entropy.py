"""`AttentionEntropy`: entropy of the mean attention late in the run, and how it changed."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from memattn.detectors.base import Detector, entropy_terms, require_whole_run
from memattn.records import Field, Record
from memattn.types import Citation


@dataclass(frozen=True)
class AttentionEntropy(Detector):
    """Late attention entropy plus the change of the summary tokens' share of it.

        a_t[i] = mean over all heads of all layers, and over pixels, of A_t[h, p, i]
        E_t    = -sum_i a_t[i] ln a_t[i]                  over all tokens
        E^S_t  = -sum_{i >= L - 1} a_t[i] ln a_t[i]       end token and padding, not renormalised
        signed:   D = mean_{late t} E_t + (mean_{late t} E^S_t - E^S_0)
        absolute: D = mean_{late t} E_t + mean_{late t} |E^S_t - E^S_0|

    where L is the prompt's length with begin and end token, 0 the first denoiser call, and the
    late calls are the last fifth of the run. E^S depends on L: compare prompts of like length.

    Args:
        last_fraction: Share of the calls that counts as late, rounded, at least one call.
        second_term: "signed" as in the authors' code, or "absolute" as in the paper.

    Source:
        Ren et al. 2024, arXiv:2403.11052, metric D.
    """

    last_fraction: float = 0.2
    second_term: Literal["signed", "absolute"] = "signed"

    CITATION: ClassVar[Citation] = Citation(
        title=(
            "Unveiling and Mitigating Memorization in Text-to-image Diffusion Models through "
            "Cross Attention"
        ),
        authors="Ren et al.",
        venue="ECCV 2024",
        arxiv="2403.11052",
        equation="D = mean_{last T/5} E_t + (mean_{last T/5} E^S_t - E^S_T) (mode D)",
        deviations=(
            "The second term is signed, as in the authors' code; the paper takes absolute "
            "differences: second_term='absolute'.",
            "The mean runs over (layer, head) pairs; where head counts differ (SD 2) the authors' "
            "merging script repeats heads so that layers weigh equally, and the paper leaves it "
            "open.",
            "The late calls are the last fifth of the denoiser calls, rounded; the authors' code "
            "fixes steps 40 to 49 of 50.",
        ),
    )
    needs: ClassVar[frozenset[Field]] = frozenset({"token_mass"})

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        if not 0 < self.last_fraction <= 1:
            raise ValueError(
                f"got last_fraction={self.last_fraction}, expected above 0 and at most 1"
            )
        if self.second_term not in ("signed", "absolute"):
            raise ValueError(
                f"got second_term={self.second_term!r}, expected 'signed' or 'absolute'"
            )

    @property
    def one_call(self) -> bool:
        """False: the end of the run is compared with its beginning."""
        return False

    def __call__(self, record: Record) -> Tensor:
        """Score every sample.

        Args:
            record: A record of a whole run with `token_mass` and prompt lengths.

        Returns:
            D in nats [B], float32.

        Raises:
            RecordError: If `token_mass` or the prompt lengths are missing, or the run was stopped
                early.
        """
        level, change = self.terms(*self.entropies(record))
        return (level + change).float()

    def entropies(self, record: Record) -> tuple[Tensor, Tensor]:
        """What the score is made of, for every call.

        Args:
            record: As for the score.

        Returns:
            E_t and E^S_t in nats [S, B], float64.

        Raises:
            RecordError: As for the score.
        """
        record.require("token_mass")
        lengths: Tensor = record.require("prompt_lengths")
        require_whole_run(record, self.name)
        terms = entropy_terms(record.mean_attention())  # [S, B, Lk]
        positions = torch.arange(record.tokens, device=terms.device)
        is_summary = positions >= lengths.to(terms.device)[:, None] - 1  # [B, Lk]
        return terms.sum(dim=-1), (terms * is_summary).sum(dim=-1)

    def terms(self, total: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """The two terms whose sum is the score.

        Args:
            total: E_t of a whole run [S, B].
            summary: E^S_t of the same run [S, B].

        Returns:
            Mean of the late E_t, and mean change of the late E^S_t since the first call [B].
        """
        late = self.late_calls(len(total))
        change = summary[-late:] - summary[0]
        if self.second_term == "absolute":
            change = change.abs()
        return total[-late:].mean(dim=0), change.mean(dim=0)

    def late_calls(self, calls: int) -> int:
        """How many of a run's calls count as late."""
        return max(1, round(self.last_fraction * calls))

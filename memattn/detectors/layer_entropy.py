"""`LayerEntropy`: entropy of one layer's averaged attention at the first denoiser call."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from memattn.detectors.base import Detector, entropy_terms
from memattn.errors import RecordError
from memattn.records import Field, Record
from memattn.types import Citation


@dataclass(frozen=True)
class LayerEntropy(Detector):
    """Entropy over text tokens of one layer's attention, averaged over heads and pixels first.

        a[i] = mean over heads and pixels of A[h, p, i]
        E^l  = -sum_i a[i] ln a[i]

    over all tokens, begin and padding tokens included, at one denoiser call. It is the entropy of
    the averaged distribution, not the average of the pixels' entropies. Between 0 (every pixel
    looks at one token) and ln(Lk); a prompt that triggers a copy spreads its attention wider.

    Args:
        layer: Index in forward order, or name, of the cross-attention layer. The authors take
            index 3 of SD 1.4's 16 layers, `down_blocks.1.attentions.1`.
        call: Denoiser call, counted from 0 (pure noise).

    Source:
        Ren et al. 2024, arXiv:2403.11052, E^l_t with t = T.
    """

    layer: int | str = 3
    call: int = 0

    CITATION: ClassVar[Citation] = Citation(
        title=(
            "Unveiling and Mitigating Memorization in Text-to-image Diffusion Models through "
            "Cross Attention"
        ),
        authors="Ren et al.",
        venue="ECCV 2024",
        arxiv="2403.11052",
        equation="E^l_T = -sum_i a[i] ln a[i], a = mean over heads and pixels of layer l (mode E)",
        deviations=(
            "Every sample of a batch is scored; the authors' code reads batch row 1 only, which "
            "is the conditional row of one prompt and one image.",
            "Attention is accumulated in float32 in the pass that makes the image; the authors' "
            "code computes it a second time in the model's dtype.",
        ),
    )
    needs: ClassVar[frozenset[Field]] = frozenset({"token_mass"})

    def __post_init__(self) -> None:
        """Refuse a call that cannot exist."""
        if self.call < 0:
            raise ValueError(f"got call={self.call}, expected 0 or more")

    @property
    def one_call(self) -> bool:
        """True for call 0."""
        return self.call == 0

    def __call__(self, record: Record) -> Tensor:
        """Score every sample.

        Args:
            record: A record with `token_mass`.

        Returns:
            Entropy in nats [B], float32.

        Raises:
            RecordError: If `token_mass` was not recorded, or the layer or the call is not there.
        """
        record.require("token_mass")
        if self.call >= record.calls:
            raise RecordError(
                f"{self.name} reads denoiser call {self.call}: got a record of {record.calls} "
                f"calls, expected at least {self.call + 1}."
            )
        layer = record.layer_index(self.layer)
        return attention_entropy(record.attention()[self.call, layer]).float()


def attention_entropy(attention: Tensor) -> Tensor:
    """E^l of attention that was averaged over heads and pixels.

    Args:
        attention: Mean attention each token received [..., Lk], as `Record.attention`.

    Returns:
        Entropy over the tokens in nats [...], float64.
    """
    return entropy_terms(attention).sum(dim=-1)

"""`BrightEnding`: the guidance gap weighted by where the end token shines at the last call."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from memattn.detectors.base import Detector, require_whole_run
from memattn.detectors.call_range import CallRange, leading_gap, validate_call_range
from memattn.errors import RecordError
from memattn.records import Field, Record, Space
from memattn.types import Citation


@dataclass(frozen=True)
class BrightEnding(Detector):
    """Guidance gap inside the Bright-Ending mask, relative to the mask's mean.

        m     = attention of each pixel to the end token at the last call, mean over heads and
                over the cross-attentions of the first down level that has any
        LD_t  = ||d_t * m||_2 / mean(m) = sqrt(sum_p m_p^2 sum_c d_t[c, p]^2) / mean(m)
        score = mean over calls of LD_t

    with d_t the guidance gap. m marks the copied region, as raw probabilities without a threshold.
    The sum over channels is recorded per pixel and call, so one run gives both m and every d_t.

    Args:
        calls: Calls that LD_t is averaged over: "first", the first k, or "all". The mask exists
            only after the last call, so every choice needs the whole run.
        space: In what the gap is measured.
        layers: Names of the layers whose maps make the mask; by default the down layers with the
            most queries (`down_blocks.0.attentions.0` and `.1` in SD 1.4).

    Source:
        Chen et al. 2025, arXiv:2410.21665, mask m and detection metric LD.
    """

    calls: CallRange = "all"
    space: Space = "epsilon"
    layers: tuple[str, ...] | None = None

    CITATION: ClassVar[Citation] = Citation(
        title="Exploring Local Memorization in Diffusion Models via Bright Ending Attention",
        authors="Chen et al.",
        venue="ICLR 2025",
        arxiv="2410.21665",
        equation="LD = mean over steps of ||(eps_c - eps_0) * m||_2 / mean(m)",
        deviations=(
            "One run gives mask and score; the authors' release generates every image twice.",
            "The mask's layers are the down layers with the most queries; the authors' code asks "
            "for exactly 4096 queries, 8 heads and 50 steps and finds nothing at other sizes.",
            "A mask smaller than the latent is enlarged bilinearly (SDXL has no cross-attention "
            "at full latent size); the authors' code knows equal sizes only.",
            "Where a model does not predict the noise, the gap is converted to the noise exactly; "
            "the authors' code takes the raw output: space='output'.",
        ),
    )
    needs: ClassVar[frozenset[Field]] = frozenset({"gap_squared", "token_maps"})

    def __post_init__(self) -> None:
        """Refuse settings without meaning."""
        validate_call_range(self.calls)
        if self.layers is not None and not self.layers:
            raise ValueError("got layers=(), expected at least one layer name, or None")

    @property
    def one_call(self) -> bool:
        """False: the mask is made at the last call."""
        return False

    def mask(self, record: Record) -> Tensor:
        """Attention to the end token at the last call, mean over heads and layers.

        Args:
            record: A record of a whole run with `token_maps` of the end token.

        Returns:
            Raw probabilities [B, h, w] at the layers' own resolution, float32.

        Raises:
            RecordError: If a layer's map is missing, shows another token, or the run was stopped
                early.

        Source:
            Chen et al. 2025, arXiv:2410.21665, Bright Ending mask.
        """
        maps = record.require("token_maps")
        require_whole_run(record, self.name)
        layers = self._mask_layers(record)
        missing = [layer for layer in layers if layer not in maps]
        if missing:
            raise RecordError(
                f"{self.name} needs the end token's map of {', '.join(layers)}: got maps of "
                f"{', '.join(maps) or 'no layer'}; record it with "
                f"memattn.record(pipe, map_layers={layers!r})."
            )
        sizes = {tuple(maps[layer].shape[-2:]) for layer in layers}
        if len(sizes) > 1:
            raise RecordError(
                f"{self.name} averages maps of one size: got {sorted(sizes)} from "
                f"{', '.join(layers)}."
            )
        _require_end_token(record, self.name)
        return torch.stack([maps[layer].float() for layer in layers]).mean(dim=0)

    def __call__(self, record: Record) -> Tensor:
        """Score every sample.

        Args:
            record: A record of a whole guided run with `gap_squared` and `token_maps`.

        Returns:
            LD [B], float32.

        Raises:
            RecordError: If the gap or the maps are missing, or the run was stopped early.
        """
        return self.local_gaps(record).mean(dim=0).float()

    def local_gaps(self, record: Record) -> Tensor:
        """LD_t of every call that is averaged over.

        Args:
            record: As for the score.

        Returns:
            LD_t [calls, B], float64.

        Raises:
            RecordError: As for the score.
        """
        squared = leading_gap(record, self.calls, self.space, self.name)  # [S, B, h, w]
        mask = self.mask(record)
        if mask.shape[-2:] != squared.shape[-2:]:
            mask = F.interpolate(
                mask[:, None], size=squared.shape[-2:], mode="bilinear", align_corners=False
            )[:, 0]
        mask = mask.double()
        mean = mask.mean(dim=(-2, -1))  # [B]
        if bool((mean == 0).any()):
            dark = (mean == 0).nonzero().flatten().tolist()
            raise RecordError(
                f"{self.name} divides by the end token's mean attention: it is 0 in samples {dark}."
            )
        return (mask.square() * squared).sum(dim=(-2, -1)).sqrt() / mean

    def _mask_layers(self, record: Record) -> tuple[str, ...]:
        """The layers asked for, or the down layers with the most queries, in forward order."""
        if self.layers is not None:
            for layer in self.layers:
                record.layer_index(layer)
            return self.layers
        down = {
            layer: queries
            for layer, queries in zip(record.layers, record.layer_queries, strict=True)
            if layer.startswith("down_blocks.")
        }
        if not down:
            raise RecordError(
                f"{self.name} looks at down_blocks.* by default: got layers "
                f"{', '.join(record.layers)}; name the ones to use, BrightEnding(layers=(...))."
            )
        return tuple(layer for layer, queries in down.items() if queries == max(down.values()))


def _require_end_token(record: Record, reader: str) -> None:
    """Refuse maps that were recorded for another token than the prompt's end token."""
    lengths, tokens = record.prompt_lengths, record.map_tokens
    if lengths is None or tokens is None:
        return
    if not torch.equal(tokens.cpu(), lengths.cpu() - 1):
        raise RecordError(
            f"{reader} needs the end token's map: got maps of tokens {tokens.tolist()}, expected "
            f"{(lengths - 1).tolist()}; record it without token=."
        )

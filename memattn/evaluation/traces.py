"""What the detectors read of a run, layer by layer and call by call: why they score as they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from memattn.detectors import AttentionEntropy, BrightEnding, NoiseMagnitude
from memattn.detectors.layer_entropy import attention_entropy
from memattn.evaluation.scoring import needed_fields
from memattn.records import Field, Record

_ATTENTION, _GAP, _LOCAL = AttentionEntropy(), NoiseMagnitude(calls="all"), BrightEnding()

FIELDS: tuple[Field, ...] = needed_fields((_ATTENTION, _GAP, _LOCAL))

# Axis of the samples in every tensor of `Traces`.
_SAMPLE_AXIS = {
    "entropy": 2,
    "begin_share": 2,
    "total_entropy": 1,
    "summary_entropy": 1,
    "gap": 1,
    "local_gap": 1,
    "prompt_lengths": 0,
}
_LAYERS = "layers"


@dataclass(frozen=True, eq=False)
class Traces:
    """What the detectors read, before they average it to one score; float64 but for the lengths.

    Attributes:
        layers: Names of the cross-attention layers in forward order [N].
        entropy: E^l_t of `LayerEntropy` for every layer and call [S, N, B], nats.
        begin_share: Share of the attention on the begin token, mean over heads and pixels
            [S, N, B].
        total_entropy: E_t of `AttentionEntropy` [S, B], nats.
        summary_entropy: E^S_t of `AttentionEntropy` [S, B], nats.
        gap: Length of the guidance gap in the noise, as `NoiseMagnitude` averages it [S, B].
        local_gap: LD_t of `BrightEnding` [S, B].
        prompt_lengths: Tokens of each prompt with begin and end token [B], int64.
    """

    layers: tuple[str, ...]
    entropy: Tensor
    begin_share: Tensor
    total_entropy: Tensor
    summary_entropy: Tensor
    gap: Tensor
    local_gap: Tensor
    prompt_lengths: Tensor

    @property
    def calls(self) -> int:
        """Denoiser calls S of each run."""
        return self.gap.shape[0]

    @property
    def samples(self) -> int:
        """Samples B."""
        return self.gap.shape[1]

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the traces of several runs of one model along the samples.

        Args:
            parts: At least one.

        Returns:
            The samples of all parts, in order.

        Raises:
            ValueError: If there are no parts, or they differ in layers or calls.
        """
        if not parts:
            raise ValueError("got no traces to join, expected at least one")
        first = parts[0]
        for part in parts[1:]:
            _require_same_kind(first, part)
        joined = {
            name: torch.cat([getattr(part, name) for part in parts], dim=axis)
            for name, axis in _SAMPLE_AXIS.items()
        }
        return cls(layers=first.layers, **joined)

    def rows(self, index: Sequence[int] | Tensor) -> Self:
        """The traces of some samples only.

        Args:
            index: Positions of the samples, or one bool per sample.

        Returns:
            Their traces, in the order given.
        """
        wanted = torch.as_tensor(index)
        if wanted.dtype == torch.bool:
            wanted = wanted.nonzero().flatten()
        chosen = {
            name: getattr(self, name).index_select(axis, wanted.long())
            for name, axis in _SAMPLE_AXIS.items()
        }
        return type(self)(layers=self.layers, **chosen)

    def tensors(self) -> dict[str, Tensor]:
        """Everything as tensors, for a safetensors file; the layers' names as UTF-8 lines."""
        names = torch.tensor(list("\n".join(self.layers).encode()), dtype=torch.uint8)
        return {_LAYERS: names, **{name: getattr(self, name) for name in _SAMPLE_AXIS}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> Self:
        """What `tensors` was made from; KeyError if one is missing."""
        layers = bytes(tensors[_LAYERS].tolist()).decode().split("\n")
        return cls(layers=tuple(layers), **{name: tensors[name] for name in _SAMPLE_AXIS})


def _require_same_kind(first: Traces, other: Traces) -> None:
    """Refuse traces of other layers or another number of calls."""
    sizes = [f"{len(traces.layers)} layers, {traces.calls} calls" for traces in (first, other)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"got traces of {sizes[0]} and of {sizes[1]}, expected runs of the same layers and "
            "calls"
        )
    for index, (name, of_other) in enumerate(zip(first.layers, other.layers, strict=True)):
        if name != of_other:
            raise ValueError(
                f"got traces whose layer {index} is {name} and traces whose layer {index} is "
                f"{of_other}, expected runs of the same layers"
            )


def trace(record: Record) -> Traces:
    """What the detectors read of one record.

    Args:
        record: A record of a whole guided run with the fields in `FIELDS` and prompt lengths.

    Returns:
        Its traces, on the CPU.

    Raises:
        RecordError: If the record lacks what one of the detectors needs.
    """
    total, summary = _ATTENTION.entropies(record)
    attention = record.attention()  # [S, N, B, Lk]
    return Traces(
        layers=record.layers,
        entropy=attention_entropy(attention).cpu(),
        begin_share=attention[..., 0].double().cpu(),
        total_entropy=total.cpu(),
        summary_entropy=summary.cpu(),
        gap=_GAP.lengths(record).cpu(),
        local_gap=_LOCAL.local_gaps(record).cpu(),
        prompt_lengths=record.require("prompt_lengths").cpu(),
    )

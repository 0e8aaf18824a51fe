"""Finds the denoiser a pipeline calls, and its cross-attention layers, by structure."""

from dataclasses import dataclass
from typing import Any

from diffusers import DiffusionPipeline
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
from diffusers.models.attention_processor import AttnProcessor as EagerAttnProcessor
from torch import nn

from memattn.errors import RecordingError
from memattn.processors.attention import innermost
from memattn.processors.recording import ImagePromptRecording, RecordingProcessor

_PLAIN_ATTENTION = (
    EagerAttnProcessor,
    AttnProcessor2_0,
    SlicedAttnProcessor,
    XFormersAttnProcessor,
)
# A UNet registers its up blocks before its middle block, but calls them after it.
_FORWARD_ORDER = {"down_blocks": 0, "mid_block": 1, "up_blocks": 2}


@dataclass(frozen=True)
class Layer:
    """One cross-attention layer."""

    name: str
    attention: Attention

    @property
    def heads(self) -> int:
        """Attention heads."""
        return int(self.attention.heads)


def denoiser_of(pipe: DiffusionPipeline) -> nn.Module:
    """The module that a pipeline calls once per step, compiled wrapper included."""
    unet = getattr(pipe, "unet", None)
    if not isinstance(unet, nn.Module):
        raise RecordingError(f"got a {type(pipe).__name__}, expected a pipeline with a UNet.")
    return unet


def uncompiled(denoiser: nn.Module) -> nn.Module:
    """The module inside the wrapper that `torch.compile(module)` returns, or the module itself."""
    inner = getattr(denoiser, "_orig_mod", denoiser)
    assert isinstance(inner, nn.Module)
    return inner


def cross_attention_layers(denoiser: nn.Module) -> tuple[Layer, ...]:
    """Every text cross-attention layer of a UNet, in forward order."""
    layers = [
        Layer(name, module)
        for name, module in uncompiled(denoiser).named_modules()
        if isinstance(module, Attention) and module.is_cross_attention
    ]
    if not layers or any(layer.name.split(".")[0] not in _FORWARD_ORDER for layer in layers):
        raise RecordingError(
            f"got a {type(uncompiled(denoiser)).__name__}, expected a UNet with cross-attention "
            "layers in its down, middle or up blocks."
        )
    return tuple(sorted(layers, key=lambda layer: _FORWARD_ORDER[layer.name.split(".")[0]]))


def first_level(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Names of the cross-attention layers of the first down block that has any."""
    blocks = [".".join(layer.name.split(".")[:2]) for layer in layers]
    return tuple(
        layer.name for layer, block in zip(layers, blocks, strict=True) if block == blocks[0]
    )


def recording_of(layer: Layer, statistics: bool) -> RecordingProcessor | ImagePromptRecording:
    """What records `layer` and leaves its output what its own processor computes."""
    original: Any = layer.attention.processor
    if isinstance(original, RecordingProcessor):
        raise RecordingError(
            f"layer {layer.name} is being recorded already: leave the other recording first."
        )
    if hasattr(original, "to_k_ip"):  # an IP-Adapter's, in one of diffusers' three variants
        return ImagePromptRecording(original, layer.name, statistics)
    if type(innermost(original)) in _PLAIN_ATTENTION:
        return RecordingProcessor(original, layer.name, statistics)
    plain = ", ".join(processor.__name__ for processor in _PLAIN_ATTENTION)
    raise RecordingError(
        f"got the processor {type(original).__name__} at layer {layer.name}, expected one that "
        f"computes plain attention: {plain} or memattn.AttnProcessor."
    )

"""Makes memattn's processors known to diffusers' hooks, which look processors up by exact class."""

from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry
from diffusers.models.attention_processor import Attention
from torch import Tensor


def register(*processors: type) -> None:
    """Tell layer-skipping and guidance hooks what a skipped layer of these processors returns."""
    metadata = AttentionProcessorMetadata(skip_processor_output_fn=_skipped)
    for processor in processors:
        # The public `register` would first import every transformer model diffusers knows.
        AttentionProcessorRegistry._registry[processor] = metadata


def _skipped(
    attn: Attention,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None = None,
    attention_mask: Tensor | None = None,
    temb: Tensor | None = None,
) -> Tensor:
    """A skipped layer hands its input on."""
    return hidden_states

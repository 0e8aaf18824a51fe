"""Processors that also keep the attention statistics of their layer's last call.

They never read what they keep, so `torch.compile` has nothing to guard on, and whoever reads it
does so right after the denoiser call, before a CUDA graph may overwrite it.
"""

from typing import Any, NamedTuple

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from memattn.errors import RecordingError
from memattn.ops.cross_attention import cross_attention
from memattn.processors.attention import delegate, finish, logit_scale, project
from memattn.processors.masks import key_bias
from memattn.types import CrossAttentionResult


class Statistics(NamedTuple):
    """What one call of one layer left behind; batch rows as the denoiser saw them.

    Attributes:
        token_mass: [B, H, Lk].
        token_entropy: [B, H, Lk].
        token_map: [B, H, Lq], None if no token was chosen.
        mask_differs: Bool tensor [], True if the layer's mask depends on head or query, so that
            these statistics are not the layer's; None where it cannot.
    """

    token_mass: Tensor
    token_entropy: Tensor
    token_map: Tensor | None
    mask_differs: Tensor | None


class RecordingProcessor:
    """Attention with statistics in the place of a processor that computes plain attention.

    Args:
        original: The processor it stands in for; it computes the output under a mask that may
            depend on head or query.
        layer: The layer's name, for messages.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, original: Any, layer: str) -> None:  # noqa: ANN401 (any processor)
        self.original = original
        self.layer = layer
        self.token: Tensor | None = None  # [B] int64, filled by the recorder
        self.statistics: Statistics | None = None
        self.queries: int | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attention of one layer, keeping its statistics."""
        if isinstance(encoder_hidden_states, tuple):
            raise RecordingError(
                f"got IP-Adapter inputs at layer {self.layer} whose processor is "
                f"{type(self.original).__name__}: load the IP-Adapter before recording begins."
            )
        result, differs = _attend(
            self, attn, hidden_states, encoder_hidden_states, attention_mask, temb
        )
        if differs is not None:
            return delegate(
                self.original, attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )
        return finish(attn, result.output, hidden_states)


class ImagePromptRecordingProcessor(nn.Module):
    """Statistics of the text part beside an IP-Adapter processor, which computes the output.

    It is a module so that the IP-Adapter's weights stay part of the denoiser while recording.

    Args:
        original: The IP-Adapter processor.
        layer: The layer's name, for messages.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, original: Any, layer: str) -> None:  # noqa: ANN401 (any processor)
        super().__init__()
        self.original = original
        self.layer = layer
        self.token: Tensor | None = None
        self.statistics: Statistics | None = None
        self.queries: int | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: tuple[Tensor, list[Tensor]] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_adapter_masks: list[Tensor] | None = None,
    ) -> Tensor:
        """The IP-Adapter's output, keeping the statistics of its text attention."""
        if not isinstance(encoder_hidden_states, tuple):
            raise RecordingError(
                f"got no image prompt at layer {self.layer}, expected the (text, image) tuple its "
                f"{type(self.original).__name__} takes; unload the IP-Adapter to record without."
            )
        _attend(self, attn, hidden_states, encoder_hidden_states[0], attention_mask, temb)
        return delegate(
            self.original,
            attn,
            hidden_states,
            encoder_hidden_states,
            attention_mask,
            temb,
            ip_adapter_masks,
        )


def _attend(
    processor: RecordingProcessor | ImagePromptRecordingProcessor,
    attn: Attention,
    hidden_states: Tensor,
    text: Tensor | None,
    attention_mask: Tensor | None,
    temb: Tensor | None,
) -> tuple[CrossAttentionResult, Tensor | None]:
    """Text attention with statistics, which `processor` keeps, and whether the mask differs."""
    bias, differs = None, None
    if attention_mask is not None:
        reduced = key_bias(attention_mask, hidden_states.shape[0], attn.heads)
        if reduced is None:
            raise RecordingError(
                f"got an attention mask of shape {list(attention_mask.shape)} at layer "
                f"{processor.layer}, expected one value per text token, e.g. [B, 1, Lk]."
            )
        bias, differs = reduced.bias, reduced.differs
    query, key, value = project(attn, hidden_states, text, temb)
    result = cross_attention(
        query, key, value, key_bias=bias, token=processor.token, scale=logit_scale(attn)
    )
    assert result.token_mass is not None
    assert result.token_entropy is not None
    processor.statistics = Statistics(
        result.token_mass, result.token_entropy, result.token_map, differs
    )
    processor.queries = query.shape[2]
    return result, differs

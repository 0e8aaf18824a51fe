"""Keeping the attention statistics of a layer's last call.

The objects here never read what they keep, so `torch.compile` has nothing to guard on, and whoever
reads it does so right after the denoiser call, before a CUDA graph may overwrite it.
"""

from typing import Any, NamedTuple

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from memattn.errors import RecordingError
from memattn.ops.cross_attention import cross_attention
from memattn.processors.attention import delegate, finish, logit_scale, project
from memattn.processors.masks import key_bias
from memattn.types import CrossAttentionResult


class Statistics(NamedTuple):
    """What one call of one layer left behind; batch rows as the denoiser saw them.

    Attributes:
        token_mass: [B, H, Lk], None if only maps are wanted.
        token_entropy: [B, H, Lk], None if only maps are wanted.
        token_map: [B, H, Lq], None if no token was chosen.
        mask_differs: Bool tensor [], True if the layer's mask depends on head or query, so that
            these statistics are not the layer's; None where it cannot.
    """

    token_mass: Tensor | None
    token_entropy: Tensor | None
    token_map: Tensor | None
    mask_differs: Tensor | None


class LayerRecording:
    """What is kept of one layer, and how it is computed.

    Args:
        original: The layer's processor; diffusers' AttnProcessor2_0 where diffusers itself rebuilds
            a processor from its class.
        layer: The layer's name, for messages.
        statistics: Whether token mass and entropy are wanted, beside the map of a chosen token.
    """

    def __init__(self, original: Any = None, layer: str = "", statistics: bool = True) -> None:  # noqa: ANN401 (any processor)
        self.original = AttnProcessor2_0() if original is None else original
        self.layer = layer
        self.token: Tensor | None = None  # [B] int64, filled by the recorder
        self.statistics: Statistics | None = None
        self.queries: int | None = None
        self._wanted = statistics

    def _attend(
        self,
        attn: Attention,
        hidden_states: Tensor,
        text: Tensor | None,
        attention_mask: Tensor | None,
        temb: Tensor | None,
    ) -> tuple[CrossAttentionResult, Tensor | None]:
        """Text attention with statistics, which are kept, and whether the mask differs."""
        bias, differs = None, None
        if attention_mask is not None:
            reduced = key_bias(attention_mask, hidden_states.shape[0], attn.heads)
            if reduced is None:
                raise RecordingError(
                    f"got an attention mask of shape {list(attention_mask.shape)} at layer "
                    f"{self.layer}, expected one value per text token, e.g. [B, 1, Lk]."
                )
            bias, differs = reduced
        query, key, value = project(attn, hidden_states, text, temb)
        result = cross_attention(
            query,
            key,
            value,
            key_bias=bias,
            token=self.token,
            scale=logit_scale(attn, self.original),
            statistics=self._wanted,
        )
        self.statistics = Statistics(
            result.token_mass, result.token_entropy, result.token_map, differs
        )
        self.queries = query.shape[2]
        return result, differs


class RecordingProcessor(LayerRecording):
    """Attention with statistics in the place of a processor that computes plain attention.

    `original` computes the output under a mask that may depend on head or query.
    """

    _attention_backend = None
    _parallel_config = None

    def attach(self, attn: Attention) -> None:
        """Take the place of the layer's processor."""
        attn.set_processor(self)

    def detach(self, attn: Attention) -> None:
        """Put the original back, unless somebody else has put a processor there meanwhile."""
        # Not `is self`: diffusers sometimes rebuilds every processor from its class.
        if isinstance(attn.processor, RecordingProcessor):
            attn.set_processor(self.original)

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
        result, differs = self._attend(
            attn, hidden_states, encoder_hidden_states, attention_mask, temb
        )
        if differs is not None:
            return delegate(
                self.original, attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )
        return finish(attn, result.output, hidden_states)


class ImagePromptRecording(LayerRecording):
    """Statistics of the text part of a layer whose IP-Adapter processor stays in its place.

    diffusers finds IP-Adapters by the class of their processors, and keeps their weights in them.
    """

    def attach(self, attn: Attention) -> None:
        """Listen to the layer's inputs."""
        self._handle: RemovableHandle = attn.register_forward_pre_hook(
            self._before, with_kwargs=True
        )

    def detach(self, attn: Attention) -> None:
        """Stop listening."""
        self._handle.remove()

    def _before(self, attn: Attention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Compute the statistics of the text that the layer is about to attend to."""
        names = ("hidden_states", "encoder_hidden_states", "attention_mask")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        both = given.get("encoder_hidden_states")
        if not isinstance(both, tuple):
            raise RecordingError(
                f"got no image prompt at layer {self.layer}, expected the (text, image) tuple its "
                f"{type(self.original).__name__} takes; unload the IP-Adapter to record without."
            )
        self._attend(
            attn, given["hidden_states"], both[0], given.get("attention_mask"), given.get("temb")
        )

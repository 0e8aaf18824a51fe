"""`AttnProcessor`: memattn's attention in the place of diffusers' AttnProcessor2_0."""

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor

from memattn.ops.cross_attention import cross_attention
from memattn.processors.masks import key_bias


class AttnProcessor:
    """Drop-in attention processor for diffusers' `Attention`, self- and cross-attention.

    Computes softmax(Q K^T / sqrt(D) + key bias) V with `memattn.cross_attention` and everything
    around it (norms, residual, rescaling) as AttnProcessor2_0 does. What it does not compute is
    delegated to `original`: masks that depend on the query or the head, and IP-Adapter inputs.

    Args:
        original: The processor this one stands in for; by default diffusers' AttnProcessor2_0.

    Example:
        >>> pipe.unet.set_attn_processor(memattn.AttnProcessor())  # doctest: +SKIP
    """

    # read by diffusers' attention dispatcher and context parallelism
    _attention_backend = None
    _parallel_config = None

    def __init__(self, original: Any = None) -> None:  # noqa: ANN401 (any processor)
        self.original = AttnProcessor2_0() if original is None else original

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | tuple[Tensor, list[Tensor]] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        ip_adapter_masks: list[Tensor] | None = None,
    ) -> Tensor:
        """Attention of one layer.

        Args:
            attn: The layer, which owns the projections and norms.
            hidden_states: Image features [B, Lq, C] or [B, C, h, w].
            encoder_hidden_states: Text features [B, Lk, C]; None for self-attention; a tuple with
                image features when an IP-Adapter is loaded.
            attention_mask: Mask that diffusers hands down, e.g. [B, 1, Lk].
            temb: Time embedding, read by the layer's spatial norm.
            ip_adapter_masks: Image masks of an IP-Adapter, handed on to `original`.

        Returns:
            Features in the shape of `hidden_states`.

        Raises:
            TypeError: If IP-Adapter inputs come and `original` cannot take them.
        """
        if isinstance(encoder_hidden_states, tuple):
            if not takes_image_prompts(self.original):
                raise TypeError(
                    f"got IP-Adapter inputs and {type(self.original).__name__}, expected an "
                    "IP-Adapter processor: load the IP-Adapter first, then put "
                    "memattn.AttnProcessor(original) around its processor."
                )
            return delegate(
                self.original,
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                temb,
                ip_adapter_masks,
            )
        bias = None
        if attention_mask is not None:
            reduced = key_bias(attention_mask, hidden_states.shape[0], attn.heads)
            if reduced is None or not reduced.is_whole:
                return delegate(
                    self.original, attn, hidden_states, encoder_hidden_states, attention_mask, temb
                )
            bias = reduced.bias
        query, key, value = project(attn, hidden_states, encoder_hidden_states, temb)
        result = cross_attention(
            query, key, value, key_bias=bias, scale=logit_scale(attn), statistics=False
        )
        return finish(attn, result.output, hidden_states)


def takes_image_prompts(processor: object) -> bool:
    """Whether a processor is an IP-Adapter's, which takes (text, image) tuples."""
    return hasattr(processor, "to_k_ip")


def delegate(
    original: Any,  # noqa: ANN401 (any processor)
    attn: Attention,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | tuple[Tensor, list[Tensor]] | None,
    attention_mask: Tensor | None,
    temb: Tensor | None,
    ip_adapter_masks: list[Tensor] | None = None,
) -> Tensor:
    """Call `original`, leaving out optional arguments that were not given.

    SlicedAttnProcessor, for one, has no `temb`. diffusers' own processors take no 4-D mask, so one
    [B, 1 or H, 1 or Lq, Lk] is handed on as [B * H, 1 or Lq, Lk].
    """
    if attention_mask is not None and attention_mask.ndim == 4:
        attention_mask = attention_mask.expand(-1, attn.heads, -1, -1).flatten(0, 1)
    optional = {"temb": temb, "ip_adapter_masks": ip_adapter_masks}
    given = {name: value for name, value in optional.items() if value is not None}
    output: Tensor = original(
        attn,
        hidden_states,
        encoder_hidden_states=encoder_hidden_states,
        attention_mask=attention_mask,
        **given,
    )
    return output


def logit_scale(attn: Attention) -> float | None:
    """The layer's own scale where it asks for another one than D^-0.5, which None stands for."""
    return None if attn.scale_qk else attn.scale


def project(
    attn: Attention,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None,
    temb: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [B, H, Lq, D], keys and values [B, H, Lk, D] of one layer, as transposed views."""
    if attn.spatial_norm is not None:
        hidden_states = attn.spatial_norm(hidden_states, temb)
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    if encoder_hidden_states is None:
        encoder_hidden_states = hidden_states
    elif attn.norm_cross:
        encoder_hidden_states = attn.norm_encoder_hidden_states(encoder_hidden_states)
    query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    key = attn.to_k(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    value = attn.to_v(encoder_hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
    if attn.norm_q is not None:
        query = attn.norm_q(query)
    if attn.norm_k is not None:
        key = attn.norm_k(key)
    return query, key, value


def finish(attn: Attention, attended: Tensor, residual: Tensor) -> Tensor:
    """Output projection, dropout, residual and rescaling of attention output [B, H, Lq, D]."""
    hidden_states = attended.transpose(1, 2).flatten(2)
    hidden_states = attn.to_out[1](attn.to_out[0](hidden_states))
    if residual.ndim == 4:
        hidden_states = hidden_states.transpose(-1, -2).reshape(residual.shape)
    if attn.residual_connection:
        hidden_states = hidden_states + residual
    rescaled: Tensor = hidden_states / attn.rescale_output_factor
    return rescaled

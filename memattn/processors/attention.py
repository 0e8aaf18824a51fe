"""`AttnProcessor`: memattn's attention in the place of diffusers' AttnProcessor2_0."""

from typing import Any

from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from memattn.ops.cross_attention import cross_attention
from memattn.processors.masks import key_bias


class AttnProcessor:
    """Drop-in attention processor for diffusers' `Attention`, self- and cross-attention.

    Computes softmax(Q K^T / sqrt(D) + key bias) V with `memattn.cross_attention` and everything
    around it (norms, residual, rescaling) as AttnProcessor2_0 does. Masks that depend on the query
    or the head are delegated to `original`. Layers with an IP-Adapter keep its processor, which
    holds the adapter's weights.

    Args:
        original: The processor this one stands in for; by default diffusers' AttnProcessor2_0.

    Raises:
        TypeError: If `original` is a module: its weights would leave the denoiser.

    Example:
        >>> pipe.unet.set_attn_processor(memattn.AttnProcessor())  # doctest: +SKIP
    """

    # read by diffusers' attention dispatcher and context parallelism
    _attention_backend = None
    _parallel_config = None

    def __init__(self, original: Any = None) -> None:  # noqa: ANN401 (any processor)
        if isinstance(original, nn.Module):
            raise TypeError(
                f"got {type(original).__name__}, which holds weights, expected a processor without "
                "any: leave IP-Adapter layers their own processors."
            )
        self.original = AttnProcessor2_0() if original is None else original

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Attention of one layer.

        Args:
            attn: The layer, which owns the projections and norms.
            hidden_states: Image features [B, Lq, C] or [B, C, h, w].
            encoder_hidden_states: Text features [B, Lk, C]; None for self-attention.
            attention_mask: Mask that diffusers hands down, e.g. [B, 1, Lk].
            temb: Time embedding, read by the layer's spatial norm.

        Returns:
            Features in the shape of `hidden_states`.

        Raises:
            TypeError: If the text comes with an IP-Adapter's image features.
        """
        if isinstance(encoder_hidden_states, tuple):
            raise TypeError(
                "got IP-Adapter inputs at a memattn.AttnProcessor, expected text features: leave "
                "IP-Adapter layers their own processors."
            )
        bias = None
        if attention_mask is not None:
            reduced = key_bias(attention_mask, hidden_states.shape[0], attn.heads)
            if reduced is None or reduced.differs is not None:
                return delegate(
                    self.original, attn, hidden_states, encoder_hidden_states, attention_mask, temb
                )
            bias = reduced.bias
        query, key, value = project(attn, hidden_states, encoder_hidden_states, temb)
        result = cross_attention(
            query,
            key,
            value,
            key_bias=bias,
            scale=logit_scale(attn, self.original),
            statistics=False,
        )
        return finish(attn, result.output, hidden_states)


def delegate(
    original: Any,  # noqa: ANN401 (any processor)
    attn: Attention,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor | None,
    attention_mask: Tensor | None,
    temb: Tensor | None,
) -> Tensor:
    """Call `original`, with `temb` only if it was given: SlicedAttnProcessor has none.

    diffusers' own processors take no 4-D mask, so one [B, 1 or H, 1 or Lq, Lk] is handed on as
    [B * H, 1 or Lq, Lk].
    """
    if attention_mask is not None and attention_mask.ndim == 4:
        attention_mask = attention_mask.expand(-1, attn.heads, -1, -1).flatten(0, 1)
    given = {} if temb is None else {"temb": temb}
    output: Tensor = original(
        attn,
        hidden_states,
        encoder_hidden_states=encoder_hidden_states,
        attention_mask=attention_mask,
        **given,
    )
    return output


def innermost(processor: object) -> object:
    """The processor that a `memattn.AttnProcessor` stands in for, or the processor itself."""
    return innermost(processor.original) if isinstance(processor, AttnProcessor) else processor


def logit_scale(attn: Attention, original: object) -> float | None:
    """The layer's own scale where `original` would honour it; None stands for D^-0.5."""
    if attn.scale_qk or isinstance(innermost(original), AttnProcessor2_0):
        return None
    scale: float = attn.scale
    return scale


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
    # Autocast runs some of these norms in float32.
    return query.to(value.dtype), key.to(value.dtype), value


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

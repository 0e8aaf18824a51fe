"""Cross-attention over text that also returns what each token received, in one CUDA kernel.

    kernel = kernels.get_kernel(...)
    result = kernel.cross_attention(query, key, value)

Inference only. The whole of memattn (other backends, gradients, diffusers processors, detectors) is
a package of its own: pip install memattn.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ._ops import add_op_namespace_prefix, ops


class CrossAttentionResult(NamedTuple):
    """What `cross_attention` returns; what was not asked for is None.

    Attributes:
        output: [B, H, Lq, D], laid out so that the (B, Lq, H * D) view costs no copy.
        token_mass: Sum over queries of p(query, token) [B, H, Lk], float32.
        token_entropy: Sum over queries of -p ln p [B, H, Lk], float32, nats.
        token_map: The chosen token's attention column [B, H, Lq], float32.
    """

    output: Tensor
    token_mass: Tensor | None
    token_entropy: Tensor | None
    token_map: Tensor | None


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None = None,
    begin_scale: Tensor | None = None,
    token: Tensor | None = None,
    scale: float | None = None,
    statistics: bool = True,
) -> CrossAttentionResult:
    """Attention with the attention each key received and its entropy.

    Args:
        query: [B, H, Lq, D] on CUDA, float16 or bfloat16; D one of 40, 64, 72, 80, 96, 112, 128,
            160.
        key: [B, H, Lk, D], Lk up to 320, as far as shared memory allows.
        value: [B, H, Lk, D].
        key_bias: Added to the scaled logits [B, Lk]; -inf removes a key.
        begin_scale: Multiplies the scaled logit of key 0, before `key_bias` is added [B].
        token: Also return this key's attention column as a map [B], int64.
        scale: Multiplies the logits; D ** -0.5 by default.
        statistics: False for plain attention.

    Raises:
        RuntimeError: If the kernel does not take an argument.
    """
    scale = query.shape[3] ** -0.5 if scale is None else scale
    output, mass, entropy, token_map, _ = ops.cross_attention(
        query, key, value, key_bias, begin_scale, token, scale, statistics, False
    )
    return CrossAttentionResult(
        output,
        mass if statistics else None,
        entropy if statistics else None,
        token_map if token is not None else None,
    )


@torch.library.register_fake(add_op_namespace_prefix("cross_attention"))
def _fake(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    token: Tensor | None,
    scale: float,
    statistics: bool,
    logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, queries, dim = query.shape
    output = query.new_empty((batch, queries, heads, dim)).transpose(1, 2)
    lengths = (
        key.shape[2] if statistics else None,
        key.shape[2] if statistics else None,
        queries if token is not None else None,
        queries if logsumexp else None,
    )
    mass, entropy, token_map, lse = (
        query.new_empty((0,) if n is None else (batch, heads, n), dtype=torch.float32)
        for n in lengths
    )
    return output, mass, entropy, token_map, lse


__all__ = ["CrossAttentionResult", "cross_attention"]

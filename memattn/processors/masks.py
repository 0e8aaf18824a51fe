"""Attention masks as diffusers hands them to processors, read as one bias per key."""

from typing import NamedTuple

import torch
from torch import Tensor


class KeyBias(NamedTuple):
    """A mask reduced to its keys.

    Attributes:
        bias: Added to the scaled logits [B, Lk]: the mask's row for the first head and query.
        differs: Whether the mask depends on head or query (a bool tensor [], computed without a
            device sync); None where its shape and strides show that it cannot.
    """

    bias: Tensor
    differs: Tensor | None


def key_bias(mask: Tensor, batch: int, heads: int) -> KeyBias | None:
    """Reduce a mask to a bias per key, or None if its shape is none that diffusers uses.

    Shapes: [B, Lk], [B, 1 or Lq, Lk], [B * H, 1 or Lq, Lk], [B, 1 or H, 1 or Lq, Lk]; additive, or
    bool with True for "attend".
    """
    if mask.ndim == 2:
        mask = mask[:, None]
    if mask.ndim == 3 and mask.shape[0] == batch:
        mask = mask[:, None]
    elif mask.ndim == 3 and mask.shape[0] == batch * heads:
        mask = mask.unflatten(0, (batch, heads))
    if mask.ndim != 4 or mask.shape[0] != batch or mask.shape[1] not in (1, heads):
        return None
    bias = mask[:, 0, 0]  # [B, Lk]
    if bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=torch.float32).masked_fill(~bias, float("-inf"))
    # an axis of size 1, or one that was only expanded, cannot vary
    if all(mask.shape[axis] == 1 or mask.stride(axis) == 0 for axis in (1, 2)):
        return KeyBias(bias, None)
    return KeyBias(bias, (mask != mask[:, :1, :1]).any())

"""Cross-attention with token statistics in Triton: which calls it takes.

Importing this file implements the ops that dispatch has defined.
"""

import torch

from memattn.kernels.triton.backward import backward
from memattn.kernels.triton.forward import forward
from memattn.kernels.triton.launch import refusal
from memattn.types import CrossAttentionRequest

_MOST_KEYS = 1024


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    keys = request.key.shape[2]
    if keys > _MOST_KEYS:
        return f"it takes up to {_MOST_KEYS} keys, got {keys}"
    return refusal(request.query)


def beats_torch(request: CrossAttentionRequest) -> bool:
    """Whether attention without statistics is faster here than torch's own.

    That has not been measured on any GPU; until then torch's own is taken.
    """
    return False


torch.library.impl("memattn::cross_attention_triton", "default", forward)
torch.library.impl("memattn::cross_attention_triton_backward", "default", backward)

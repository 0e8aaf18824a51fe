"""Cross-attention with statistics in CUDA: which calls csrc/cuda/cross_attention.cu takes.

Importing this file loads the library, which implements the op that dispatch has defined.
"""

import torch

from memattn import _extension
from memattn.kernels.cuda.limits import why_not_call
from memattn.types import CrossAttentionRequest

if torch.version.cuda is None:
    raise ImportError("this torch has no CUDA")
_extension.load("cuda")


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    return why_not_call(request.query, request.key.shape[2], statistics=request.statistics)


def beats_torch(request: CrossAttentionRequest) -> bool:
    """Whether attention without statistics is faster here than torch's own.

    That has not been measured on any GPU; until then torch's own is taken.
    """
    return False

"""Cross-attention with statistics in CUDA: which calls csrc/cuda/cross_attention.cu takes.

Importing this file loads the library, which implements the op that dispatch has defined.
"""

import torch

from memattn import _extension
from memattn.types import CrossAttentionRequest

if torch.version.cuda is None:
    raise ImportError("this torch has no CUDA")
_extension.load("cuda")

_DTYPES = (torch.float16, torch.bfloat16)
_DIMS = (40, 64, 72, 80, 96, 112, 128, 160)
_MOST_KEYS = 128
_LEAST_MAJOR = 8


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    query, keys = request.query, request.key.shape[2]
    dim = query.shape[3]
    if query.device.type != "cuda":
        return f"it takes tensors on cuda, got {query.device}"
    if query.dtype not in _DTYPES:
        return f"it takes {' and '.join(map(str, _DTYPES))}, got {query.dtype}"
    if dim not in _DIMS:
        return f"it takes head dimensions of {', '.join(map(str, _DIMS))}, got {dim}"
    if keys > _MOST_KEYS:
        return f"it takes up to {_MOST_KEYS} keys, got {keys}"
    gpu = torch.cuda.get_device_properties(query.device)
    if gpu.major < _LEAST_MAJOR:
        found = f"{gpu.major}.{gpu.minor} ({gpu.name})"
        return f"it takes compute capability {_LEAST_MAJOR}.0 or more, got {found}"
    return None


def beats_torch(request: CrossAttentionRequest) -> bool:
    """Whether attention without statistics is faster here than torch's own.

    That has not been measured on any GPU; until then torch's own is taken.
    """
    return False

"""Cross-attention with token statistics on the CPU: which calls csrc/cpu/cross_attention.cpp takes.

Importing this file loads the library, which implements the ops that dispatch has defined.
"""

import torch

from memattn import _extension
from memattn.types import CrossAttentionRequest

_extension.load("cpu")
_CAPABILITY: str = torch.ops.memattn.cpu_capability()

# Without AVX-512, torch's attention (matrix products of a tuned library) gains on long keys.
_MOST_KEYS_WITH_AVX2 = 1024


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    query = request.query
    dim = query.shape[3]
    if query.device.type != "cpu":
        return f"it takes tensors on the cpu, got {query.device}"
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it takes torch.float32, torch.bfloat16 and torch.float16, got {query.dtype}"
    if dim % 8 != 0 or dim > 256:
        return f"it takes head dimensions that are multiples of 8 up to 256, got {dim}"
    return None


def beats_torch(request: CrossAttentionRequest) -> bool:
    """Whether attention without statistics is faster here than torch's own."""
    if _CAPABILITY == "AVX2":
        return request.key.shape[2] <= _MOST_KEYS_WITH_AVX2
    return _CAPABILITY.startswith("AVX512")

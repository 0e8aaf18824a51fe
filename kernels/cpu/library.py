"""The compiled library of csrc/cpu, and which queries its kernels take.

Importing this file loads the library, which implements the ops that dispatch has defined.
"""

import torch
from torch import Tensor

from memattn import _extension

_extension.load("cpu")
CAPABILITY: str = torch.ops.memattn.cpu_capability()


def why_not_query(query: Tensor) -> str | None:
    """Say why the kernels do not take a query [B, H, Lq, D], or None if they do."""
    dim = query.shape[3]
    if query.device.type != "cpu":
        return f"it takes tensors on the cpu, got {query.device}"
    if query.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        return f"it takes torch.float32, torch.bfloat16 and torch.float16, got {query.dtype}"
    if dim % 8 != 0 or dim > 256:
        return f"it takes head dimensions that are multiples of 8 up to 256, got {dim}"
    return None

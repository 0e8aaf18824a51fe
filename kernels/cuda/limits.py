"""What the kernels of csrc/cuda are compiled for, and what a GPU has to have for them."""

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16)
DIMS = (40, 64, 72, 80, 96, 112, 128, 160)
MOST_KEYS = 320
_SHORT_KEYS = (32, 80, 128)
_LEAST_MAJOR = 8


def why_not_call(query: Tensor, keys: int, *, statistics: bool) -> str | None:
    """Say why no kernel takes a query [B, H, Lq, D] and so many keys, or None."""
    dim = query.shape[3]
    if query.device.type != "cuda":
        return f"it takes tensors on cuda, got {query.device}"
    if query.dtype not in DTYPES:
        return f"it takes {' and '.join(map(str, DTYPES))}, got {query.dtype}"
    if dim not in DIMS:
        return f"it takes head dimensions of {', '.join(map(str, DIMS))}, got {dim}"
    if keys > MOST_KEYS:
        return f"it takes up to {MOST_KEYS} keys, got {keys}"
    gpu = torch.cuda.get_device_properties(query.device)
    if gpu.major < _LEAST_MAJOR:
        found = f"{gpu.major}.{gpu.minor} ({gpu.name})"
        return f"it takes compute capability {_LEAST_MAJOR}.0 or more, got {found}"
    needed = shared_bytes(dim, keys, statistics)
    has = gpu.shared_memory_per_block_optin  # type: ignore[attr-defined]  # torch's stubs lack it
    if needed > has:
        return f"it takes {needed} bytes of shared memory for this call, got {has} ({gpu.name})"
    return None


def shared_bytes(dim: int, keys: int, statistics: bool) -> int:
    """Shared memory of a block, as csrc/cuda/plan.h shares it out."""
    row = 2 * ((dim + 15) // 16 * 16 + 8)
    if keys <= _SHORT_KEYS[-1]:
        padded = next(size for size in _SHORT_KEYS if size >= keys)
        warps, queries = 4, 48 if dim <= 40 else 32
    else:
        padded = (keys + 15) // 16 * 16
        warps, queries = 8, 16
    sums = 8 * padded if statistics else 0
    return 2 * padded * row + 4 * padded + warps * (queries * row + sums)

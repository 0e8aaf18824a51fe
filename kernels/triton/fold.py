"""Adds up what several programs have summed."""

import torch
from torch import Tensor

from memattn.kernels.triton.jit.fold import fold_kernel
from memattn.kernels.triton.launch import Launch, divided_up, strides

_BLOCK_CHUNKS, _BLOCK_COLUMNS = 32, 128
LAUNCH = Launch(
    fold_kernel,
    {"BLOCK_CHUNKS": _BLOCK_CHUNKS, "BLOCK_COLUMNS": _BLOCK_COLUMNS},
    warps=4,
    stages=1,
)


def fold(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Add up two tensors of partial sums [B, H, chunks, keys] over their chunks [B, H, keys]."""
    if first.shape[2] == 1:
        return first.squeeze(2), second.squeeze(2)
    folded, also_folded = torch.empty_like(first[:, :, 0]), torch.empty_like(second[:, :, 0])
    fold_into(folded.unsqueeze(3), also_folded.unsqueeze(3), first, second)
    return folded, also_folded


def fold_into(folded: Tensor, also_folded: Tensor, first: Tensor, second: Tensor) -> None:
    """Write sums over chunks, [B, H, keys, D] of [B, H, chunks, keys * D], in any dtype.

    Both have the same strides, and numbers of one head and key lie side by side. By one kernel,
    because the order of torch's own sums depends on the number of rows.
    """
    batch, heads, chunks, columns = first.shape
    grid = (batch * heads * divided_up(columns, _BLOCK_COLUMNS), 2)
    depth = folded.shape[3]
    LAUNCH(
        grid, first, second, folded, also_folded, *strides(1, folded), heads, columns, chunks, depth
    )

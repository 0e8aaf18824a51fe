"""Adds up what several programs have summed."""

import torch
from torch import Tensor

from memattn.kernels.triton.jit.fold import fold_kernel
from memattn.kernels.triton.launch import Launch, divided_up

_BLOCK_CHUNKS, _BLOCK_COLUMNS = 32, 128
LAUNCH = Launch(
    fold_kernel,
    {"BLOCK_CHUNKS": _BLOCK_CHUNKS, "BLOCK_COLUMNS": _BLOCK_COLUMNS},
    warps=4,
    stages=1,
)


def fold(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Add up two tensors of partial sums [rows, chunks, columns] over their chunks [rows, columns].

    By one kernel, because the order of torch's own sums depends on the number of rows.
    """
    rows, chunks, columns = first.shape
    if chunks == 1:
        return first.squeeze(1), second.squeeze(1)
    folded = torch.empty_like(first[:, 0]), torch.empty_like(second[:, 0])
    grid = (rows * divided_up(columns, _BLOCK_COLUMNS), 2)
    LAUNCH(grid, first, second, *folded, chunks, columns)
    return folded

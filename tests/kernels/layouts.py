"""Strides and places in memory that a tensor [B, H, L, D] may have."""

import torch


def transposed(tensor):
    return tensor.transpose(1, 2).contiguous().transpose(1, 2)


def head_dimension_outermost(tensor):
    return tensor.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)


def every_second_of_the_last_axis(tensor):
    return tensor.repeat_interleave(2, dim=3)[..., ::2]


def every_second_row(tensor):
    return tensor.repeat_interleave(2, dim=2)[:, :, ::2]


def inside_longer_rows(tensor):
    return in_nan(tensor, (0, 0, 0, 3))


def at_an_odd_offset(tensor):
    return in_nan(tensor, (1, 1, 1, 5))


def in_nan(tensor, margins):
    """The tensor amid nan: `margins` before and after it on every axis, and one element more."""
    shape = [size + 2 * margin for size, margin in zip(tensor.shape, margins, strict=True)]
    around = tensor.new_full((1 + torch.Size(shape).numel(),), torch.nan)[1:].view(shape)
    for axis, margin in enumerate(margins):
        around = around.narrow(axis, margin, tensor.shape[axis])
    return around.copy_(tensor)


LAYOUTS = [
    transposed,
    head_dimension_outermost,
    every_second_of_the_last_axis,
    every_second_row,
    inside_longer_rows,
    at_an_odd_offset,
]

"""Preallocated storage: one row per denoiser call, NaN until written."""

import torch
from torch import Tensor

from memattn.errors import RecordingError


class Slab:
    """A float32 tensor [capacity, ...] on the device of what is written; doubles when full.

    Args:
        name: What it holds, for messages.
        capacity: Rows to allocate at the first write.
    """

    def __init__(self, name: str, capacity: int) -> None:
        self._name = name
        self._capacity = capacity
        self._rows: Tensor | None = None

    def write(self, row: int, value: Tensor) -> None:
        """Copy `value` into a row; no copy to the host, no synchronisation."""
        if self._rows is None:
            self._rows = self._empty(self._capacity, value)
        if value.shape != self._rows.shape[1:]:
            raise RecordingError(
                f"got {self._name} of shape {list(value.shape)} in call {row}, expected "
                f"{list(self._rows.shape[1:])} as in the calls before: samples and sizes cannot "
                "change within one recording."
            )
        if row >= self._rows.shape[0]:
            more = self._empty(max(row + 1 - len(self._rows), len(self._rows)), value)
            self._rows = torch.cat([self._rows, more])
        self._rows[row].copy_(value)

    def finished(self, rows: int) -> Tensor:
        """The first `rows` rows, on the CPU."""
        if self._rows is None:
            raise RecordingError(f"nothing was recorded for {self._name}.")
        return self._rows[:rows].to("cpu", copy=True)

    @staticmethod
    def _empty(rows: int, like: Tensor) -> Tensor:
        # A tensor born in inference mode could not be used with autograd afterwards.
        with torch.inference_mode(False):
            shape = (rows, *like.shape)
            return torch.full(shape, float("nan"), dtype=torch.float32, device=like.device)

"""Which denoiser calls of a run a detector of the guidance gap averages over."""

from typing import Literal

from torch import Tensor

from memattn.detectors.base import require_whole_run
from memattn.errors import RecordError
from memattn.records import Record, Space

CallRange = Literal["first", "all"] | int


def validate_call_range(calls: CallRange) -> None:
    """Raise ValueError unless `calls` is "first", "all" or a positive number."""
    is_count = isinstance(calls, int) and not isinstance(calls, bool) and calls >= 1
    if not (is_count or calls in ("first", "all")):
        raise ValueError(f"got calls={calls!r}, expected 'first', 'all' or a positive integer")


def leading_gap(record: Record, calls: CallRange, space: Space, reader: str) -> Tensor:
    """Squared guidance gap of the calls to read [S, B, h, w], float64; RecordError if not there."""
    squared = record.gap(space)
    if calls == "all":
        require_whole_run(record, reader)
        wanted = record.calls
    else:
        wanted = 1 if calls == "first" else calls
    if record.calls < wanted:
        raise RecordError(
            f"{reader} reads the first {wanted} denoiser calls: got a record of {record.calls}."
        )
    converted = space == "epsilon" and record.prediction_type != "epsilon"
    if converted and bool(record.sigmas[:wanted].isinf().all()):
        # The noise is then the input itself, with or without the prompt: every score would be 0.
        raise RecordError(
            f"{reader} measures the gap in the noise: got only calls at an infinite noise level "
            "(zero terminal SNR), where it is 0 for every prompt; use space='output'."
        )
    return squared[:wanted].double()

"""What every detector is, and what all of them promise.

Shared invariants, tested for every entry of `memattn.detectors.DETECTORS`:

- a higher score means more likely memorized;
- one score per sample, [B] float32, and no sample's score depends on another sample;
- entropies are in nats, attention rows sum to 1;
- only the conditional half of a guided run is read, unless the detector says otherwise;
- a detector is a pure function of a `Record`: no pipeline, no device choice, no printing.
"""

import dataclasses
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from memattn.errors import RecordError
from memattn.records import Field, Record
from memattn.types import Citation


class Detector(Protocol):
    """One published detection method with its settings; calling it scores the samples of a record.

    Attributes:
        CITATION: Where the method comes from, its formula, and departures from it.
        needs: The fields that `memattn.record(pipe, fields=...)` has to collect for it.
    """

    CITATION: ClassVar[Citation]
    needs: ClassVar[frozenset[Field]]

    @property
    def one_call(self) -> bool:
        """True if the first denoiser call is all it looks at."""
        ...

    @property
    def name(self) -> str:
        """Class name with the settings that are not defaults: `NoiseMagnitude(calls='all')`.

        Two detectors with the same name give the same scores, so a calibration is filed under it.
        """
        assert dataclasses.is_dataclass(self)
        changed = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return type(self).__name__ + (f"({', '.join(changed)})" if changed else "")

    def __call__(self, record: Record) -> Tensor:
        """Score every sample.

        Args:
            record: One run.

        Returns:
            Scores [B], float32; higher = more likely memorized.

        Raises:
            RecordError: If the record lacks what the method needs.
        """
        ...


@runtime_checkable
class Localiser(Protocol):
    """A detector that also says where in the image the copy is."""

    @property
    def name(self) -> str:
        """Name of the detector."""
        ...

    def mask(self, record: Record) -> Tensor:
        """Where the copy is.

        Args:
            record: One run.

        Returns:
            One mask per sample [B, h, w], float32; higher = more likely copied.

        Raises:
            RecordError: If the record lacks what the method needs.
        """
        ...


def entropy_terms(distribution: Tensor) -> Tensor:
    """-p ln p of every element in float64, with 0 ln 0 = 0; sums of them are entropies in nats."""
    p = distribution.double()
    return -torch.xlogy(p, p)


def require_whole_run(record: Record, reader: str) -> None:
    """Refuse a record that ends before the run that its scheduler had planned."""
    if record.scheduled_calls is not None and record.calls < record.scheduled_calls:
        raise RecordError(
            f"{reader} reads the whole run: got a record of the first {record.calls} of "
            f"{record.scheduled_calls} denoiser calls, expected all of them."
        )

"""Finished batches of unfinished work, one file each, so that a killed run loses one batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memattn.errors import InputError
from memattn.evaluation.traces import Traces
from memattn.whole import whole_file

_FORMAT = "memattn-batch-1"
_BATCHES = "batch-*.safetensors"
_SCORE, _MASK, _TRACE = "score/", "mask/", "trace/"
_IMAGES, _ATTENTION = "images", "attention"


@dataclass(frozen=True, eq=False)
class Batch:
    """What the whole runs of one batch of cases left behind; attributes as in `Runs`.

    Attributes:
        scores: Detector name to scores [b].
        unreadable: Name of each detector that cannot read this batch to the reason.
        masks: Localiser's name to masks [b, h, w].
        images: Images [b, height, width, 3], uint8; None if none were wanted.
        traces: What the detectors read; None if not wanted, or the model lacks what it needs.
        attention: Attention each token received [b, Lk]; None if not wanted.
        calls: Denoiser calls of one run.
    """

    scores: dict[str, Tensor]
    unreadable: dict[str, str]
    masks: dict[str, Tensor]
    images: Tensor | None
    traces: Traces | None
    attention: Tensor | None
    calls: int


class Store:
    """A folder of batches that belong to one piece of work and to no other.

    Args:
        folder: The folder; made when the first batch is written.
        identity: What the work is made of, each part under the name that a user knows it by. A
            batch of other work is refused.
    """

    def __init__(self, folder: Path, identity: Mapping[str, str]) -> None:
        self._folder = folder
        self._identity = dict(identity)

    def read(self, index: int, samples: int) -> Batch | None:
        """A batch that `write` kept.

        Args:
            index: Which batch.
            samples: How many samples it must have.

        Returns:
            The batch, or None if it was not written yet.

        Raises:
            InputError: If the file is damaged, or belongs to other work.
        """
        path = self._path(index)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"expected the format {_FORMAT}")
            _refuse_other(json.loads(metadata["identity"]), self._identity, self._folder)
            batch = _batch(tensors, json.loads(metadata["batch"]))
            _check_samples(batch, samples)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"got {path}, which is no batch of unfinished work ({error}); remove it to have "
                "it made again."
            ) from error
        return batch

    def write(self, index: int, batch: Batch) -> None:
        """Keep a batch; its file appears whole or not at all.

        Args:
            index: Which batch.
            batch: The batch.

        Raises:
            InputError: If it cannot be written, as on a full disk.
        """
        tensors = {
            **{_SCORE + name: scores for name, scores in batch.scores.items()},
            **{_MASK + name: masks for name, masks in batch.masks.items()},
            **({} if batch.images is None else {_IMAGES: batch.images}),
            **({} if batch.attention is None else {_ATTENTION: batch.attention}),
            **(
                {_TRACE + name: tensor for name, tensor in batch.traces.tensors().items()}
                if batch.traces is not None
                else {}
            ),
        }
        kept = {
            "scores": list(batch.scores),  # a file has its tensors in another order
            "unreadable": batch.unreadable,
            "calls": batch.calls,
        }
        metadata = {
            "format": _FORMAT,
            "identity": json.dumps(self._identity),
            "batch": json.dumps(kept),
        }
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path(index)) as fresh:
                fresh.write_bytes(save(contiguous, metadata=metadata))
        except OSError as error:
            raise InputError(
                f"cannot keep unfinished work in {self._folder}: {error.strerror}; the same "
                "command goes on after the last batch there once it can be written."
            ) from error

    def _path(self, index: int) -> Path:
        """Where a batch stands."""
        return self._folder / f"batch-{index:05d}.safetensors"


def holds_batches(folder: Path) -> bool:
    """Whether a `Store` of this folder would find batches."""
    return any(folder.glob(_BATCHES))


def check_identity(folder: Path, identity: Mapping[str, str], *, root: Path) -> None:
    """Refuse a folder with batches of other work, by their headers alone.

    A batch that is damaged is left to `Store.read`, which names its file.

    Args:
        folder: The folder of a `Store`, which need not exist.
        identity: What the work is made of, or what is known of that already.
        root: What to remove to start anew: the folder, or one that holds all stores of the work.

    Raises:
        InputError: If a batch belongs to other work.
    """
    for path in sorted(folder.glob(_BATCHES)):
        try:
            with safe_open(path, framework="pt") as file:
                found = json.loads((file.metadata() or {})["identity"])
        except (OSError, SafetensorError, KeyError, ValueError):
            continue
        _refuse_other(found, identity, root)


def _refuse_other(found: Mapping[str, str], identity: Mapping[str, str], folder: Path) -> None:
    """Refuse a batch of other work."""
    other = [name for name, value in identity.items() if found.get(name) != value]
    if other:
        raise InputError(
            f"got unfinished work in {folder} of other {', '.join(other)} than asked for; start it "
            "the same way to finish it, or remove that folder to start anew."
        )


def _batch(tensors: Mapping[str, Tensor], kept: Mapping[str, object]) -> Batch:
    """A batch from what stands in its file; KeyError, TypeError or ValueError if it does not."""

    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}

    scores, masks, traced = under(_SCORE), under(_MASK), under(_TRACE)
    order = kept["scores"]
    unreadable = kept["unreadable"]
    calls = kept["calls"]
    if (
        not isinstance(order, list)
        or not isinstance(unreadable, dict)
        or not isinstance(calls, int)
    ):
        raise TypeError("expected other values in its header")
    return Batch(
        scores={name: scores[name] for name in order},
        unreadable=unreadable,
        masks={name: masks[name] for name in order if name in masks},
        images=tensors.get(_IMAGES),
        traces=Traces.from_tensors(traced) if traced else None,
        attention=tensors.get(_ATTENTION),
        calls=calls,
    )


def _check_samples(batch: Batch, samples: int) -> None:
    """Refuse a batch with another number of samples."""
    parts: Sequence[Tensor] = [
        *batch.scores.values(),
        *batch.masks.values(),
        *([] if batch.images is None else [batch.images]),
        *([] if batch.attention is None else [batch.attention]),
    ]
    sizes = {tensor.shape[0] if tensor.ndim else 0 for tensor in parts}
    if batch.traces is not None:
        sizes.add(batch.traces.samples)
    if sizes != {samples}:
        raise ValueError(f"expected {samples} samples")

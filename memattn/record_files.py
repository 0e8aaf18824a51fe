"""Record files: tensors and a JSON header in one safetensors file, written whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from memattn.errors import RecordError
from memattn.whole import whole_file

_FORMAT = "memattn-record-1"


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write to a temporary neighbour of `path`, then rename it into place."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": _FORMAT, "record": json.dumps(header)}
    try:
        with whole_file(path) as fresh:
            # Not safetensors' own save_file: only their owner may read the files it makes.
            fresh.write_bytes(save(contiguous, metadata=metadata))
    except (OSError, SafetensorError) as error:
        raise RecordError(f"cannot write the record {path}: {error}.") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file that `write` made."""
    if not path.is_file():
        raise RecordError(f"got {path}, expected a record file: there is no such file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RecordError(f"got {path}, expected a record file: {error}.") from error
    if metadata.get("format") != _FORMAT:
        found = metadata.get("format", "none")
        raise RecordError(f"got {path} of format {found}, expected a record of format {_FORMAT}.")
    try:
        header = json.loads(metadata["record"])
    except (KeyError, json.JSONDecodeError) as error:
        raise RecordError(f"got {path}, expected a record file: its header is damaged.") from error
    if not isinstance(header, dict):
        raise RecordError(f"got {path}, expected a record file: its header is no JSON object.")
    return tensors, header

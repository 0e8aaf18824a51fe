"""The batches that a command keeps until it has finished, so that a stopped one goes on."""

import re
from pathlib import Path

# A killed run leaves the batch that it was writing under a hidden name.
_BATCH = re.compile(r"^\.?batch-\d+\.safetensors")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder, or what stands where one is to be made, may be removed with all it holds.

    Args:
        folder: A folder of batches, in folders of their own or not; it need not exist.

    Returns:
        False if it is a file, or holds one that is no batch.
    """
    if not folder.is_dir():
        return not folder.exists()
    return all(_BATCH.match(file.name) for file in folder.rglob("*") if not file.is_dir())

"""The batches that a command keeps until it has finished, so that a stopped one goes on."""

import re
from pathlib import Path

# A killed run leaves the batch that it was writing under a hidden name.
_BATCH = re.compile(r"batch-\d+\.safetensors|\.batch-\d+\.safetensors\.[0-9a-f]+")


def is_unfinished(folder: Path) -> bool:
    """Whether a folder, or what stands where one is to be made, may be removed with all it holds.

    Args:
        folder: A folder of batches, in folders of their own or not; it need not exist.

    Returns:
        False if it is a file or a link, or holds a file that is no batch.
    """
    if folder.is_symlink() or folder.is_file():
        return False
    return all(_BATCH.fullmatch(file.name) for file in folder.rglob("*") if not file.is_dir())

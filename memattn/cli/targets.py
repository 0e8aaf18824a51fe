"""Where a command may write, found out before any work is done."""

import tempfile
from pathlib import Path

from memattn.errors import InputError


def check_output(path: Path, *, folder: bool) -> None:
    """Refuse a path that a command could not write to at its end.

    Folders that do not exist yet may be made on the way. Whether one may be written to is found
    out by making, and removing, an empty folder: permissions alone do not tell of a file system
    that is read-only.

    Args:
        path: What is to be written.
        folder: Whether that is a folder, or a file.

    Raises:
        InputError: If the path is taken by a file instead of a folder or the other way round, or
            nothing can be made where it is to stand.
    """
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"got the file {path}, expected a folder.")
    if not folder and path.is_dir():
        raise InputError(f"got the folder {path}, expected a file.")
    parents = path.absolute().parents
    ancestor = next((parent for parent in parents if parent.exists()), path.absolute())
    if not ancestor.is_dir():
        raise InputError(f"cannot write {path}: {ancestor} is a file, expected a folder.")
    try:
        with tempfile.TemporaryDirectory(prefix=".memattn.", dir=ancestor):
            pass
    except OSError as error:
        raise InputError(
            f"cannot write {path}: nothing can be made in {ancestor} ({error.strerror})."
        ) from error

"""Folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memattn.errors import InputError

PAGE = "index.html"
IMAGES = "images"
THRESHOLDS = "calibration.json"

_OURS = {PAGE, IMAGES, THRESHOLDS}
_SIGNATURE = b'<meta name="generator" content="memattn '
_HEAD = 1024  # bytes of a page in which its signature stands


def check_target(target: Path) -> None:
    """Refuse a target that a report may not replace, before any work is done.

    Args:
        target: Where the report's folder is to stand.

    Raises:
        InputError: If the target is a file, or a folder with something else than a report in it.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"got {target} for the report, expected a folder, not a file.")
    if any(target.iterdir()) and not _is_report(target):
        raise InputError(
            f"got {target} for the report, expected a new or empty folder or an earlier report: "
            "it holds other files, and the report replaces the whole folder."
        )


def _is_report(folder: Path) -> bool:
    """Whether a folder holds an earlier report and nothing else."""
    if {entry.name for entry in folder.iterdir()} - _OURS or not (folder / PAGE).is_file():
        return False
    with (folder / PAGE).open("rb") as page:
        return _SIGNATURE in page.read(_HEAD)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill, and put it at `target` once the block ends without an error.

    The folder stands beside the target, so that the last step is a rename. Whatever ends the block
    early, Ctrl-C included, leaves the target as it was.

    Args:
        target: Where the folder is to stand; an earlier report there is replaced.

    Yields:
        The folder to fill.

    Raises:
        InputError: As `check_target`.
    """
    target = target.absolute()
    check_target(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    workplace = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    fresh, replaced = workplace / "fresh", workplace / "replaced"
    try:
        fresh.mkdir()
        yield fresh
        if target.exists():
            os.replace(target, replaced)
        os.replace(fresh, target)
    finally:
        # Interrupted between the two renames, the earlier report goes back to its place.
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        shutil.rmtree(workplace)

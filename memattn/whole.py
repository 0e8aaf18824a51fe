"""Files and folders that appear whole or not at all."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a path to write, and rename it to `target` once the block ends without an error.

    Whatever ends the block early, Ctrl-C included, leaves the target as it was.

    Args:
        target: Where the file is to stand; its folder must exist.

    Yields:
        A path beside the target.
    """
    # Not from tempfile, whose files only their owner may read, whatever the umask.
    fresh = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        yield fresh
        os.replace(fresh, target)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to fill, and put it at `target` once the block ends without an error.

    The folder stands beside the target, so that the last step is a rename. Whatever ends the block
    early, Ctrl-C included, leaves the target as it was.

    Args:
        target: Where the folder is to stand; one that is there already is replaced.

    Yields:
        The folder to fill.
    """
    target = target.absolute()
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
        # Interrupted between the two renames, the earlier folder goes back to its place.
        if replaced.exists() and not target.exists():
            os.replace(replaced, target)
        shutil.rmtree(workplace)

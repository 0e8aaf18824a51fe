"""The folder of a report: what may be replaced by one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memattn import whole
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
    return not {entry.name for entry in folder.iterdir()} - _OURS and is_page(folder / PAGE)


def is_page(path: Path) -> bool:
    """Whether a file is a page that memattn wrote."""
    if not path.is_file():
        return False
    with path.open("rb") as page:
        return _SIGNATURE in page.read(_HEAD)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder for a report, which appears at `target` whole or not at all.

    Args:
        target: Where the folder is to stand; an earlier report there is replaced.

    Yields:
        The folder to fill.

    Raises:
        InputError: As `check_target`.
    """
    check_target(target)
    with whole.whole_folder(target) as fresh:
        yield fresh

"""The folder of an evaluation: its files, and what may be replaced by one."""

import re
from pathlib import Path

from memattn.cli.targets import check_output
from memattn.errors import InputError
from memattn.report import PAGE, THRESHOLDS, is_page

TABLE, SCORES, CONTROLS, UNFINISHED = "table.csv", "scores.csv", "controls", "unfinished"

# A killed run leaves the batch that it was writing under a hidden name.
_BATCH = re.compile(r"^\.?batch-\d+\.safetensors")
_OURS = {PAGE, "figures", THRESHOLDS, TABLE, SCORES, CONTROLS, UNFINISHED}


def check_evaluation_folder(folder: Path) -> None:
    """Refuse a folder that an evaluation may not replace, before any work is done.

    Args:
        folder: Where the evaluation is to stand.

    Raises:
        InputError: If it cannot be written, or holds something else than an evaluation, finished
            or not.
    """
    check_output(folder, folder=True)
    if not folder.exists():
        return
    names = {entry.name for entry in folder.iterdir()}
    batches = (folder / UNFINISHED).rglob("*")
    foreign = any(_BATCH.search(file.name) is None for file in batches if not file.is_dir())
    if foreign or (names - {UNFINISHED} and (names - _OURS or not is_page(folder / PAGE))):
        raise InputError(
            f"got {folder} for the evaluation, expected a new or empty folder or an earlier "
            "evaluation: it holds other files, and the evaluation replaces the whole folder."
        )

"""The folder of an evaluation: its files, and what may be replaced by one."""

from pathlib import Path

from memattn.cli.targets import check_output
from memattn.cli.unfinished import is_unfinished
from memattn.errors import InputError
from memattn.report import PAGE, THRESHOLDS, is_page

TABLE, LOCALISERS, SIMILARITY = "table.csv", "localisers.csv", "similarity.csv"
SCORES, CONTROLS, UNFINISHED = "scores.csv", "controls", "unfinished"

_OURS = {PAGE, "figures", THRESHOLDS, TABLE, LOCALISERS, SIMILARITY, SCORES, CONTROLS, UNFINISHED}


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
    foreign = not is_unfinished(folder / UNFINISHED)
    if foreign or (names - {UNFINISHED} and (names - _OURS or not is_page(folder / PAGE))):
        raise InputError(
            f"got {folder} for the evaluation, expected a new or empty folder or an earlier "
            "evaluation: it holds other files, and the evaluation replaces the whole folder."
        )

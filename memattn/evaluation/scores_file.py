"""Scores of many cases as a table that any program reads: `scores.csv`."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from memattn.errors import InputError
from memattn.evaluation.cases import Case, Role
from memattn.whole import whole_file

_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}
_CASE_COLUMNS = ("prompt", "seed", "role", "group", "showings")


@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores that a model gave in an earlier evaluation.

    Attributes:
        source: Where they stand, for messages.
        cases: The cases; their true masks are not stored.
        scores: Detector name to scores [n], float32.
    """

    source: str
    cases: tuple[Case, ...]
    scores: dict[str, Tensor]

    def of(self, cases: Sequence[Case], detectors: Sequence[str]) -> dict[str, Tensor]:
        """Scores of some cases, found by prompt and seed.

        Args:
            cases: The cases.
            detectors: Names of the detectors.

        Returns:
            Detector name to scores, in the order of `cases`.

        Raises:
            InputError: If a case or a detector is missing.
        """
        lacking = [name for name in detectors if name not in self.scores]
        if lacking:
            raise InputError(
                f"got scores in {self.source} without {', '.join(lacking)}, expected every "
                "detector that is evaluated."
            )
        rows = {(case.prompt, case.seed): row for row, case in enumerate(self.cases)}
        missing = [case for case in cases if (case.prompt, case.seed) not in rows]
        if missing:
            raise InputError(
                f"got scores in {self.source} without {len(missing)} of {len(cases)} prompts, "
                f"first {missing[0].prompt!r} with seed {missing[0].seed}, expected all of them."
            )
        index = torch.tensor([rows[case.prompt, case.seed] for case in cases])
        return {name: self.scores[name][index] for name in detectors}


def write_scores(path: Path, cases: Sequence[Case], scores: Mapping[str, Tensor]) -> None:
    """Write one line per case, whole or not at all.

    Args:
        path: Target file; its folder must exist.
        cases: The cases.
        scores: Detector name to scores [n], float32; written with every digit they have.
    """
    columns = [values.tolist() for values in scores.values()]
    with whole_file(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_CASE_COLUMNS, *scores])
        for case, *values in zip(cases, *columns, strict=True):
            showings = "" if case.showings is None else case.showings
            own = [case.prompt, case.seed, case.role, case.group, showings]
            writer.writerow([*own, *map(repr, values)])


def read_scores(path: Path) -> StoredScores:
    """Read what `write_scores` wrote.

    Args:
        path: A CSV file.

    Returns:
        Its cases and scores.

    Raises:
        InputError: If the file is missing, unreadable, or no table of scores.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise InputError(f"got the scores file {path}, which does not exist.") from None
    except OSError as error:
        raise InputError(f"cannot read the scores file {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"got {path}, expected a table of scores: {error}.") from error
    own = len(_CASE_COLUMNS)
    if tuple(header[:own]) != _CASE_COLUMNS or len(header) == own:
        raise InputError(
            f"got {path} with the columns {', '.join(header) or 'none'}, expected "
            f"{', '.join(_CASE_COLUMNS)} and one for each detector."
        )
    cases, values = [], []
    for number, line in enumerate(lines, start=2):
        try:
            cases.append(_case(line, len(header)))
            values.append([float(text) for text in line[own:]])
        except ValueError as error:
            raise InputError(f"got {path} with a damaged line {number}: {error}.") from error
    if not cases:
        raise InputError(f"got {path} without a line of scores, expected at least one.")
    table = torch.tensor(values, dtype=torch.float32)
    return StoredScores(
        source=str(path),
        cases=tuple(cases),
        scores={name: table[:, column] for column, name in enumerate(header[own:])},
    )


def _case(line: Sequence[str], columns: int) -> Case:
    """One line's case; ValueError with the reason if it is none."""
    if len(line) != columns:
        raise ValueError(f"{len(line)} cells, expected {columns}")
    prompt, seed, role, group, showings = line[: len(_CASE_COLUMNS)]
    if role not in _ROLES:
        raise ValueError(f"role {role!r}, expected one of {', '.join(_ROLES)}")
    return Case(
        prompt=prompt,
        seed=int(seed),
        role=_ROLES[role],
        group=group,
        showings=int(showings) if showings else None,
    )

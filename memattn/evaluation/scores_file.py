"""Scores of many cases as a table that any program reads: `scores.csv`."""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from memattn.errors import InputError
from memattn.evaluation.cases import Case, Role
from memattn.evaluation.settings import RunSettings
from memattn.whole import whole_file

_ROLES: dict[str, Role] = {role: role for role in get_args(Role)}
_CASE_COLUMNS = ("prompt", "seed", "role", "group", "showings")
_OWN_COLUMNS = (*_CASE_COLUMNS, "model", "settings")  # the last two are the same in every line


@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores that a model gave in an earlier evaluation.

    Attributes:
        source: Where they stand, for messages.
        model: `model_hash` of the model.
        settings: How it generated, in words.
        cases: The cases; their true masks are not stored.
        scores: Detector name to scores [n], float32.
    """

    source: str
    model: str
    settings: str
    cases: tuple[Case, ...]
    scores: dict[str, Tensor]

    def check(
        self,
        cases: Sequence[Case],
        detectors: Sequence[str],
        *,
        model: str,
        settings: RunSettings,
    ) -> None:
        """Refuse scores that are no control of a model under test.

        Args:
            cases: Cases that the model is measured on.
            detectors: Names of the detectors that are measured, of which one is enough.
            model: `model_hash` of the model under test.
            settings: How it generates, resolved.

        Raises:
            InputError: If the scores are those of that model, or were made with other settings, or
                lack a case or every detector.
        """
        if self.model == model:
            raise InputError(
                f"got scores in {self.source} of the model under test itself, expected those of "
                "another one."
            )
        if self.settings != _in_words(settings):
            raise InputError(
                f"got scores in {self.source} made with {self.settings}, expected "
                f"{_in_words(settings)}, as for the model under test."
            )
        if not any(name in self.scores for name in detectors):
            raise InputError(
                f"got scores in {self.source} by {', '.join(self.scores)}, expected at least one "
                f"of {', '.join(detectors)}."
            )
        self._rows(cases)

    def of(self, cases: Sequence[Case], detectors: Sequence[str]) -> dict[str, Tensor]:
        """Scores of some cases, found by prompt and seed.

        Args:
            cases: The cases.
            detectors: Names of the detectors; those without scores are left out.

        Returns:
            Detector name to scores, in the order of `cases`.

        Raises:
            InputError: If a case is missing.
        """
        rows = self._rows(cases)
        return {name: self.scores[name][rows] for name in detectors if name in self.scores}

    def _rows(self, cases: Sequence[Case]) -> list[int]:
        """Where some cases stand."""
        rows = {(case.prompt, case.seed): row for row, case in enumerate(self.cases)}
        missing = [case for case in cases if (case.prompt, case.seed) not in rows]
        if missing:
            raise InputError(
                f"got scores in {self.source} without {len(missing)} of {len(cases)} prompts, "
                f"first {missing[0].prompt!r} with seed {missing[0].seed}, expected all of them."
            )
        return [rows[case.prompt, case.seed] for case in cases]


def write_scores(
    path: Path,
    cases: Sequence[Case],
    scores: Mapping[str, Tensor],
    *,
    model: str,
    settings: RunSettings,
) -> None:
    """Write one line per case, whole or not at all.

    Args:
        path: Target file; its folder must exist.
        cases: The cases.
        scores: Detector name to scores [n], float32; written with every digit they have.
        model: `model_hash` of the model that gave them.
        settings: How it generated, resolved.
    """
    columns = [values.tolist() for values in scores.values()]
    with whole_file(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_OWN_COLUMNS, *scores])
        for case, *values in zip(cases, *columns, strict=True):
            showings = "" if case.showings is None else case.showings
            own = [case.prompt, case.seed, case.role, case.group, showings]
            writer.writerow([*own, model, _in_words(settings), *map(repr, values)])


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
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except FileNotFoundError:
        raise InputError(f"got the scores file {path}, which does not exist.") from None
    except OSError as error:
        raise InputError(f"cannot read the scores file {path}: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"got {path}, expected a table of scores: {error}.") from error
    own = len(_OWN_COLUMNS)
    if tuple(header[:own]) != _OWN_COLUMNS or len(header) == own:
        raise InputError(
            f"got {path} with the columns {', '.join(header) or 'none'}, expected "
            f"{', '.join(_OWN_COLUMNS)} and one for each detector."
        )
    if not lines:
        raise InputError(f"got {path} without a line of scores, expected at least one.")
    cases, values = [], []
    for number, line in enumerate(lines, start=2):
        try:
            cases.append(_case(line, len(header)))
            _check_origin(line, lines[0])
            values.append(_scores(line[own:]))
        except ValueError as error:
            raise InputError(f"got {path} with a damaged line {number}: {error}.") from error
    model, settings = lines[0][len(_CASE_COLUMNS) : own]
    table = torch.stack(values)
    return StoredScores(
        source=str(path),
        model=model,
        settings=settings,
        cases=tuple(cases),
        scores={name: table[:, column] for column, name in enumerate(header[own:])},
    )


def _in_words(settings: RunSettings) -> str:
    """How images are generated, in one cell."""
    return " ".join(f"{name}={value}" for name, value in dataclasses.asdict(settings).items())


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


def _check_origin(line: Sequence[str], first: Sequence[str]) -> None:
    """ValueError if a line comes from another model or other settings than the first one."""
    for column in range(len(_CASE_COLUMNS), len(_OWN_COLUMNS)):
        if line[column] != first[column]:
            raise ValueError(
                f"{_OWN_COLUMNS[column]} {line[column]!r}, expected {first[column]!r} as in line 2"
            )


def _scores(cells: Sequence[str]) -> Tensor:
    """One line's scores [detectors], float32; ValueError if one is no finite number."""
    values = torch.tensor([float(text) for text in cells], dtype=torch.float32)
    for text, finite in zip(cells, values.isfinite().tolist(), strict=True):
        if not finite:
            raise ValueError(f"score {text}, expected a finite number")
    return values

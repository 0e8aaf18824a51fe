"""The tables of an evaluation as files that any program reads."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from memattn.evaluation.bootstrap import Estimate
from memattn.evaluation.groups import COPIES, GroupFigures
from memattn.evaluation.localisation import Localisation
from memattn.evaluation.roc import Auroc
from memattn.evaluation.study import ALL, DetectorResult, LocaliserResult, Study


def write_table(path: Path, study: Study) -> None:
    """Write one line per detector and population: all memorized prompts, and each group of them.

    These are on the model, and on each control after "control: ". Figures that belong to the model
    as a whole (true-positive rate, F1, threshold, cost) stand in the line of all memorized prompts.

    Args:
        path: Target file.
        study: What was found.
    """
    lines: list[dict[str, object]] = []
    for result in study.detectors:
        name = result.detector.name
        for part, area in result.auroc.items():
            whole = _whole_model(study, result) if part == ALL else {}
            flagged, count = (
                study.flagged_by(name, "memorized") if part == ALL else result.flagged[part]
            )
            counts: dict[str, object] = {"flagged": flagged, "of": count}
            lines.append(_area_cells(result, part, area) | counts | whole)
        for control, area in result.controls.items():
            lines.append(_area_cells(result, f"control: {control}", area))
            for group, of_group in study.control_areas(name, control).items():
                lines.append(_area_cells(result, f"control: {control}, {group}", of_group))
    _write(path, _COLUMNS, lines)


_COLUMNS = (
    "detector",
    "population",
    "memorized",
    "ordinary",
    *("auroc", "auroc_low", "auroc_high"),
    *("flagged", "of", "ordinary_flagged"),
    *("tpr_at_1_percent_fpr", "tpr_low", "tpr_high"),
    *("f1", "f1_low", "f1_high"),
    *("threshold", "threshold_low", "threshold_high"),
    "calls",
    "seconds_per_prompt",
)


def _area_cells(result: DetectorResult, population: str, area: Auroc) -> dict[str, object]:
    """The cells that every line has."""
    return {
        "detector": result.detector.name,
        "population": population,
        "memorized": area.memorized,
        "ordinary": area.ordinary,
    } | _interval_cells("auroc", area)


def _whole_model(study: Study, result: DetectorResult) -> dict[str, object]:
    """The cells of the line of all memorized prompts."""
    cells = _interval_cells("f1", result.f1) | {
        "ordinary_flagged": study.flagged_by(result.detector.name, "ordinary")[0],
        "threshold": result.threshold,
        "threshold_low": result.threshold_interval[0],
        "threshold_high": result.threshold_interval[1],
        "calls": result.calls,
        "seconds_per_prompt": result.seconds,
    }
    if result.tpr is not None:
        cells |= {
            "tpr_at_1_percent_fpr": result.tpr.value,
            "tpr_low": result.tpr.low,
            "tpr_high": result.tpr.high,
        }
    return cells


def write_localisers(path: Path, localisers: Sequence[LocaliserResult]) -> None:
    """Write one line per localiser and model: the one under test, each control that was run.

    Args:
        path: Target file.
        localisers: What was found, at least one.
    """
    lines = [
        {"localiser": result.name, "on": where} | _localisation_cells(found)
        for result in localisers
        for where, found in {"model": result.model, **result.controls}.items()
    ]
    _write(path, tuple(lines[0]), lines)


def write_similarity(path: Path, groups: Sequence[GroupFigures]) -> None:
    """Write one line per group of images and part in the evaluation; copies are counted.

    Args:
        path: Target file.
        groups: Their figures, at least one.
    """
    lines: list[dict[str, object]] = [
        {"group": group.group, "counted_as": group.counted_as, "images": group.images}
        | {
            re.sub(r"\W+", "_", name.lower()): group.copies if name == COPIES else mean
            for name, mean in group.means.items()
        }
        for group in groups
    ]
    _write(path, tuple(lines[0]), lines)


def _localisation_cells(found: Localisation) -> dict[str, object]:
    """Figures of one localiser on one model."""
    cells: dict[str, object] = {"prompts": found.samples}
    cells |= _interval_cells("average_precision", found.average_precision)
    cells["chance_average_precision"] = found.chance_average_precision
    cells |= _interval_cells("iou", found.iou)
    cells["chance_iou"] = found.chance_iou
    cells |= _interval_cells("native_average_precision", found.native_average_precision)
    return cells | _interval_cells("native_iou", found.native_iou)


def _interval_cells(name: str, figure: Estimate | Auroc) -> dict[str, object]:
    """A figure and the ends of its interval."""
    return {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}


def _write(path: Path, columns: Sequence[str], lines: Iterable[Mapping[str, object]]) -> None:
    """A header and the lines; what a line does not have stays empty."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)

"""What an evaluation prints, and `table.csv`: the figures of a study in rows."""

import csv
from collections.abc import Callable
from pathlib import Path

from memattn.cli.tables import paragraph, table
from memattn.evaluation.bootstrap import Estimate
from memattn.evaluation.localisation import Localisation
from memattn.evaluation.roc import Auroc
from memattn.evaluation.study import ALL, DetectorResult, Study

_TPR = "TPR at 1 % FPR"


def study_tables(study: Study) -> str:
    """All tables of a study, each with a line that says what it is."""
    parts = [
        "AUROC of memorized against ordinary prompts (95 % interval)",
        _areas(study),
        "Verdicts at the calibrated threshold, and cost",
        _verdicts(study),
    ]
    if study.control_scores:
        parts += ["AUROC of the same prompts on the controls: 19 of 20 should contain 0.5"]
        parts += [_controls(study)]
    if study.localisers:
        parts += [_localiser_caption(study), _localisers(study)]
    return "\n\n".join(parts)


def write_table(path: Path, study: Study) -> None:
    """Write one line per detector and population: all memorized prompts, each group, each control.

    Figures that belong to the model as a whole (true-positive rate, F1, threshold, cost) stand in
    the line of all memorized prompts.

    Args:
        path: Target file.
        study: What was found.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for result in study.detectors:
            for part, area in result.auroc.items():
                whole = _whole_model(study, result) if part == ALL else {}
                flagged, count = (
                    study.flagged_by(result.detector.name, "memorized")
                    if part == ALL
                    else result.flagged[part]
                )
                counts = {"flagged": flagged, "of": count}
                writer.writerow(_area_cells(result, part, area) | counts | whole)
            for control, area in result.controls.items():
                writer.writerow(_area_cells(result, f"control: {control}", area))


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
        "auroc": area.value,
        "auroc_low": area.low,
        "auroc_high": area.high,
    }


def _whole_model(study: Study, result: DetectorResult) -> dict[str, object]:
    """The cells of the line of all memorized prompts."""
    cells: dict[str, object] = {
        "ordinary_flagged": study.flagged_by(result.detector.name, "ordinary")[0],
        "f1": result.f1.value,
        "f1_low": result.f1.low,
        "f1_high": result.f1.high,
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


def _areas(study: Study) -> str:
    """One column per group of memorized prompts."""
    groups = list(study.detectors[0].auroc)
    sizes = [study.detectors[0].auroc[group].memorized for group in groups]
    header = [
        f"{group.replace('_', ' ')}\n{n} prompts" for group, n in zip(groups, sizes, strict=True)
    ]
    rows = [
        [result.detector.name, *(interval(result.auroc[group]) for group in groups)]
        for result in study.detectors
    ]
    return table(["detector", *header], rows)


def _verdicts(study: Study) -> str:
    """Figures at one threshold, and what they cost."""
    header = ["detector", _TPR.replace(" at ", "\nat "), "F1", "flagged of\nmemorized"]
    header += ["of\nordinary", "calls", "s per\nprompt"]
    rows = [
        [
            result.detector.name,
            "too few prompts" if result.tpr is None else interval(result.tpr),
            interval(result.f1),
            "{} of {}".format(*study.flagged_by(result.detector.name, "memorized")),
            "{} of {}".format(*study.flagged_by(result.detector.name, "ordinary")),
            str(result.calls),
            f"{result.seconds:.2g}",
        ]
        for result in study.detectors
    ]
    return table(header, rows, right=(3, 4, 5, 6))


def _controls(study: Study) -> str:
    """One column per control."""
    names = list(study.control_scores)
    rows = [
        [
            result.detector.name,
            *(interval(result.controls[n]) if n in result.controls else "-" for n in names),
        ]
        for result in study.detectors
    ]
    return table(["detector", *names], rows)


def _localiser_caption(study: Study) -> str:
    """What the table of localisers is measured on."""
    found = study.localisers[0].model
    return paragraph(
        f"Where the copy is, on {found.samples} prompts with a known region; a mask that knows "
        f"nothing gets an average precision (AP) of {found.chance_average_precision:.2f}, and as "
        f"many pixels in random places an IoU of {found.chance_iou:.2f}"
    )


def _localisers(study: Study) -> str:
    """One line per localiser and model."""
    readings: tuple[Callable[[Localisation], Estimate], ...] = (
        lambda found: found.average_precision,
        lambda found: found.iou,
        lambda found: found.native_average_precision,
        lambda found: found.native_iou,
    )
    rows = []
    for result in study.localisers:
        for where, found in {"model": result.model, **result.controls}.items():
            rows.append([result.name, where, *(interval(read(found)) for read in readings)])
    header = ["localiser", "on", "AP", "IoU", "AP at the\nmask's size", "IoU at the\nmask's size"]
    return table(header, rows)


def interval(figure: Auroc | Estimate) -> str:
    """A figure with its interval."""
    return f"{figure.value:.2f} ({figure.low:.2f}-{figure.high:.2f})"

"""What an evaluation prints: the figures of a study in rows."""

from collections.abc import Callable

from memattn.cli.tables import paragraph, table
from memattn.evaluation.bootstrap import Estimate
from memattn.evaluation.localisation import Localisation
from memattn.evaluation.roc import Auroc
from memattn.evaluation.study import Study

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

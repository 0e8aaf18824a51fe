"""Measure how well the detectors tell memorized from ordinary prompts.

Runs every prompt once and scores it with every detector, sets thresholds on ordinary prompts that
are used for nothing else, and compares memorized with ordinary ones, beside controls that have
memorized nothing. The testbed knows its own prompts; another checkpoint takes two files, of whose
ordinary prompts every other one sets the thresholds. A run that was stopped goes on when it is
started again the same way.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from memattn.cli.options import add_model_options, run_settings, share
from memattn.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from memattn.cli.evaluation_similarity import Likeness
    from memattn.detectors import Detector
    from memattn.evaluation.cases import Case
    from memattn.evaluation.settings import Pipeline, RunSettings
    from memattn.evaluation.study import Control, Study
    from memattn.testbed import Manifest


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_model_options(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for tables and report"
    )
    for option, what in (
        ("--memorized", "prompts that the model has memorized"),
        ("--ordinary", "prompts that it has not, at least 197 for a rate of 0.01"),
    ):
        parser.add_argument(
            option,
            type=Path,
            metavar="FILE",
            help=f"{what}, one per line; needed unless the model is a testbed",
        )
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another control beside random weights: a checkpoint, a testbed, or the scores.csv "
        "of an earlier evaluation; may be repeated",
    )
    parser.add_argument(
        "--training-images",
        type=Path,
        metavar="DIR",
        help="images that the model was trained on, to compare with (a testbed has its own); a "
        "thousand with a thousand take ten minutes",
    )
    parser.add_argument(
        "--sscd",
        type=Path,
        metavar="FILE",
        help="TorchScript file of SSCD to compare with; loading it runs it, so trust its source",
    )
    parser.add_argument(
        "--clip", type=Path, metavar="DIR", help="folder of a CLIP model, for CLIP scores"
    )
    parser.add_argument(
        "--false-positive-rate",
        type=share,
        default=0.01,
        metavar="RATE",
        help="share of ordinary prompts that a threshold may flag (0.01)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Check, load, study, write, print."""
    from functools import partial
    from time import perf_counter

    from memattn.cli.evaluation_controls import RANDOM_WEIGHTS, parse_controls
    from memattn.cli.evaluation_folder import UNFINISHED, check_evaluation_folder
    from memattn.cli.pipelines import load_pipeline, testbed_folder
    from memattn.cli.tables import duration
    from memattn.evaluation.random_weights import with_random_denoiser
    from memattn.evaluation.study import run_study
    from memattn.evaluation.weights import model_hash

    began = perf_counter()
    data = testbed_folder(arguments.model)
    _check_options(arguments, data)
    controls = parse_controls(arguments.control)
    check_evaluation_folder(arguments.out)
    subject = _subject(arguments, data)
    likeness = _likeness(arguments, subject)
    pipe = load_pipeline(arguments.model, device=arguments.device, dtype=arguments.dtype)
    settings = run_settings(arguments, pipe)
    model = model_hash(pipe)
    study = run_study(
        pipe,
        {RANDOM_WEIGHTS: partial(with_random_denoiser, pipe)}
        | _other_controls(arguments, controls, subject, settings, model),
        subject.detectors,
        subject.cases,
        settings,
        false_positive_rate=arguments.false_positive_rate,
        batch_size=arguments.batch_size,
        store=arguments.out / UNFINISHED,
        model=model,
    )
    _report(arguments, study, subject, likeness, pipe)
    kept = f"; {study.kept} of {study.sampled} runs were there already" if study.kept else ""
    print(f"took {duration(perf_counter() - began)} in all{kept}")


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is evaluated: on which prompts, by which detectors, and how the truth is known."""

    name: str
    cases: "tuple[Case, ...]"
    detectors: "tuple[Detector, ...]"
    truth: tuple[str, ...]
    data: Path | None = None
    manifest: "Manifest | None" = None


def _check_options(arguments: argparse.Namespace, data: Path | None) -> None:
    """Refuse options that do not go together."""
    files = {"--memorized": arguments.memorized, "--ordinary": arguments.ordinary}
    if data is not None:
        given = [name for name, file in files.items() if file is not None]
        given += ["--training-images"] if arguments.training_images is not None else []
        if given:
            raise InputError(
                f"got {_listed(given)} for a testbed, expected no such option: its manifest knows "
                "prompts and pictures."
            )
        return
    if not Path(arguments.model).is_dir():
        raise InputError(
            f"got the model {arguments.model}, expected 'testbed' or the folder of a checkpoint or "
            "of a trained testbed."
        )
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise InputError(
            f"got the model {arguments.model} without {' and '.join(missing)}, expected a file "
            "with memorized and one with ordinary prompts."
        )
    if arguments.sscd is not None and arguments.training_images is None:
        raise InputError("got --sscd without --training-images, expected images to compare with.")


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them: one, one and another, or more with commas before that."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _subject(arguments: argparse.Namespace, data: Path | None) -> _Subject:
    """The testbed's prompts, or those of the files."""
    from memattn.cli.evaluation_cases import TESTBED_DETECTORS, file_cases, testbed_cases
    from memattn.detectors import DETECTORS

    if data is None:
        cases = file_cases(
            arguments.memorized,
            arguments.ordinary,
            first_seed=arguments.seed,
            false_positive_rate=arguments.false_positive_rate,
        )
        given = (
            f"The memorized prompts are those of {arguments.memorized.name}, the ordinary ones "
            f"those of {arguments.ordinary.name}, as they were given: nothing here checks them."
        )
        return _Subject(Path(arguments.model).resolve().name, cases, DETECTORS, (given,))
    from memattn.report.testbed_truth import testbed_truth
    from memattn.testbed import load_manifest

    manifest = load_manifest(data)
    cases = testbed_cases(manifest, arguments.seed)
    truth = testbed_truth(manifest)
    return _Subject("the testbed", cases, TESTBED_DETECTORS, truth, data, manifest)


def _likeness(arguments: argparse.Namespace, subject: _Subject) -> "Likeness":
    """What the images are compared with; files that cannot be used are refused before sampling."""
    from memattn.cli.evaluation_similarity import Likeness, read_images
    from memattn.evaluation.similarity import (
        ClipScore,
        Correlation,
        Measure,
        Sscd,
        SscdFile,
        StructuralSimilarity,
    )

    references: tuple[NDArray[np.uint8], ...] = ()
    measures: list[Measure] = []
    if arguments.training_images is not None:
        references = read_images(arguments.training_images)
        measures += [StructuralSimilarity(), Correlation()]
    elif subject.manifest is not None:
        references = tuple(subject.manifest.pictures)
    if arguments.sscd is not None:
        file = SscdFile.read(arguments.sscd)
        print(file.notice, flush=True)  # before the file is run, wherever stdout goes
        measures.append(Sscd(file))
    clip = ClipScore(arguments.clip) if arguments.clip is not None else None
    return Likeness(references, tuple(measures), clip)


def _other_controls(
    arguments: argparse.Namespace,
    given: dict[str, Path],
    subject: _Subject,
    settings: "RunSettings",
    model: str,
) -> "dict[str, Control]":
    """The controls beside random weights: the testbed's stored one, and those asked for."""
    from memattn.cli.evaluation_controls import (
        WITHOUT_DUPLICATES,
        load_control,
        slug,
        stored_control,
    )
    from memattn.evaluation.cases import compared

    controls: dict[str, Control] = {}
    stored = None if subject.data is None else stored_control(subject.data)
    if stored is not None and slug(WITHOUT_DUPLICATES) not in map(slug, given):
        names = [detector.name for detector in subject.detectors]
        try:
            stored.check(compared(subject.cases), names, model=model, settings=settings)
            controls[WITHOUT_DUPLICATES] = stored
        except InputError as error:
            print(f"The control {WITHOUT_DUPLICATES} is left out: {error}")
    return controls | {
        name: load_control(path, arguments, settings=settings, model=model)
        for name, path in given.items()
    }


def _report(
    arguments: argparse.Namespace,
    study: "Study",
    subject: _Subject,
    likeness: "Likeness",
    pipe: "Pipeline",
) -> None:
    """Put everything into the folder at once, and print the tables."""
    from memattn.cli.evaluation_controls import write_controls
    from memattn.cli.evaluation_csv import write_localisers, write_similarity, write_table
    from memattn.cli.evaluation_folder import CONTROLS, LOCALISERS, SCORES, SIMILARITY, TABLE
    from memattn.cli.evaluation_similarity import similarity_table, testbed_figures
    from memattn.cli.evaluation_tables import study_tables
    from memattn.cli.tables import paragraph
    from memattn.evaluation.groups import by_group
    from memattn.evaluation.scores_file import write_scores
    from memattn.report import PAGE, THRESHOLDS
    from memattn.report.evaluation import write_evaluation
    from memattn.whole import whole_folder

    figures, note = likeness.figures(study.runs), ""
    pictures = None
    if subject.manifest is not None and subject.data is not None:
        known, note = testbed_figures(pipe, subject.manifest, subject.data, study.runs)
        figures = known | figures
        shown = zip(subject.manifest.shown, subject.manifest.pictures, strict=True)
        pictures = {entry.prompt: picture for entry, picture in shown}
    groups = by_group(study.runs.cases, figures) if figures else ()
    with whole_folder(arguments.out) as folder:
        write_evaluation(
            study,
            folder,
            model=subject.name,
            truth=subject.truth,
            training_pictures=pictures,
            images=groups,
            images_note=note,
        )
        write_table(folder / TABLE, study)
        if study.localisers:
            write_localisers(folder / LOCALISERS, study.localisers)
        if groups:
            write_similarity(folder / SIMILARITY, groups)
        write_scores(
            folder / SCORES,
            study.runs.cases,
            study.runs.scores,
            model=study.calibration.model_hash,
            settings=study.settings,
        )
        study.calibration.save(folder / THRESHOLDS)
        write_controls(folder / CONTROLS, study)
    print(study_tables(study))
    if groups:
        print("\nGenerated images, by group\n")
        print(similarity_table(groups))
    if note:
        print(f"\n{paragraph(note)}")
    print(f"\nreport: {arguments.out / PAGE}")

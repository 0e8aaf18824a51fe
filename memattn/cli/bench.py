"""Time the kernels of this machine, or the recording of whole denoisers, and print the ratios.

Without files: checks every provider's result, times all of them in turns and prints memattn with
statistics by each rival; lower is better. On a GPU also without the host, with the cache warm and
cold. With files that `--save` wrote: shows those instead.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from memattn import _env
from memattn.errors import InputError

if TYPE_CHECKING:
    from memattn.benchmarks.results import Results

_TIMING = ("recording", "joint", "all", "only", "device", "anyway", "save")  # options


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="show saved results; --markdown and --figure take the checkout's newest by default",
    )
    parser.add_argument(
        "--recording", action="store_true", help="whole denoisers, recorded against stock"
    )
    parser.add_argument(
        "--joint", action="store_true", help="joint attention with the text's statistics"
    )
    parser.add_argument(
        "--all", action="store_true", help="every model and dtype, and the larger denoisers"
    )
    parser.add_argument(
        "--only", default="", metavar="NAME", help="layers whose name contains this"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is one")
    parser.add_argument(
        "--anyway", action="store_true", help="time on a busy machine too, and say so"
    )
    parser.add_argument(
        "--save",
        nargs="?",
        type=Path,
        const=True,
        metavar="DIR",
        help="write DIR/<device>/<date>.json (benchmarks/results of the checkout)",
    )
    parser.add_argument("--figure", type=Path, metavar="SVG", help="draw saved results")
    parser.add_argument(
        "--markdown", action="store_true", help="print saved results as the README has them"
    )


def run(arguments: argparse.Namespace) -> None:
    """Time, or show what was timed before."""
    if arguments.files or arguments.figure is not None or arguments.markdown:
        _show(arguments)
    else:
        _time(arguments)


def _show(arguments: argparse.Namespace) -> None:
    """Print, or draw, saved results."""
    from memattn.benchmarks.published import newest, section
    from memattn.benchmarks.results import load

    for name in _TIMING:
        if getattr(arguments, name):
            raise InputError(f"got --{name} with saved results, expected it without.")
    paths = arguments.files or newest()
    if not paths:
        raise InputError("got no file, expected results: no run is committed here yet.")
    if arguments.figure is not None:
        _draw([load(path) for path in paths], arguments.figure)
    if arguments.markdown:
        print(section(paths))
    if arguments.figure is None and not arguments.markdown:
        for path in paths:
            _print(load(path))


def _draw(runs: "list[Results]", out: Path) -> None:
    """Draw the one run of the kernels among these."""
    from memattn.benchmarks.figure import figure
    from memattn.cli.targets import check_output
    from memattn.whole import whole_file

    kernels = [results for results in runs if results.timings and not results.is_joint]
    if len(kernels) != 1:
        raise InputError(f"got {len(kernels)} runs of the kernels to draw, expected one file.")
    check_output(out, folder=False)
    with whole_file(out) as fresh:
        fresh.write_text(figure(kernels[0]), encoding="utf-8")
    print(f"figure: {out}")


def _print(results: "Results") -> None:
    """Print where and with what was measured, and the tables of one run."""
    from memattn.benchmarks.tables import notes, tables, where
    from memattn.cli.tables import paragraph, table

    busy = results.machine.get("busy")
    if busy is not None:
        print(paragraph(f"The machine was busy, and these times are not only memattn's: {busy}."))
    print(paragraph(where(results)))
    for each in tables(results):
        print(f"\n{table(each.header, each.rows, right=each.right)}")
    for note in notes(results):
        print(f"\n{paragraph(note)}")


def _time(arguments: argparse.Namespace) -> None:
    """Check that timing makes sense here, time, print, save."""
    from memattn.benchmarks import session

    session.check_installed()
    import torch

    from memattn.benchmarks.busy import why_busy
    from memattn.benchmarks.results import save

    if _env.BACKEND != "auto":
        raise InputError(
            f"got MEMATTN_BACKEND={_env.BACKEND}, expected auto: backends are timed by name, and "
            "the one that auto takes is judged."
        )
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("got --device cuda, expected cpu: torch finds no GPU here.")
    for name in ("only", "joint"):
        if arguments.recording and getattr(arguments, name):
            raise InputError(f"got --{name} with --recording, expected one of them.")
    options = ["--device", device, *(["--every"] if arguments.all else [])]
    if arguments.only:
        _check_only(arguments, device)
        options += ["--only", arguments.only]
    path = None if arguments.save is None else _path(arguments, device)
    busy = why_busy(device)
    if busy is not None and not arguments.anyway:
        raise InputError(
            f"this machine is busy: {busy}, and times would be theirs as well; wait, or time all "
            "the same with --anyway."
        )
    suite = session.JOINT if arguments.joint else session.KERNELS
    failed = None
    try:
        results = session.run(session.RECORDING if arguments.recording else suite, options)
    except session.BenchmarksFailedError as error:
        failed, results = error, error.results  # the others' times are shown and saved
    busy = busy or why_busy(device, after_timing=True)
    results = results._replace(machine={**results.machine, "busy": busy})
    if path is not None:
        save(results, path)  # first: what cannot be printed need not be timed again
    _print(results)
    if path is not None:
        print(f"\nresults: {path}")
    if failed is not None:
        raise failed


def _check_only(arguments: argparse.Namespace, device: str) -> None:
    """Refuse a name that nothing has."""
    from memattn.benchmarks.cases import cross_attention_cases, joint_attention_cases

    cases = joint_attention_cases if arguments.joint else cross_attention_cases
    if not cases(device, every=arguments.all, only=arguments.only):
        known = dict.fromkeys(c.shape.name for c in cases(device, every=arguments.all, only=""))
        raise InputError(
            f"got --only {arguments.only}, expected part of one of {', '.join(known)}."
        )


def _path(arguments: argparse.Namespace, device: str) -> Path:
    """The file that is to be written, found out before anything is timed.

    A run of a part, or of more than usual, has a name of its own and never replaces a usual one.
    """
    from memattn.benchmarks.machine import folder_name
    from memattn.benchmarks.published import JOINT, RECORDING, RESULTS
    from memattn.cli.targets import check_output

    if arguments.save is True and not RESULTS.is_dir():
        raise InputError("got --save without a folder, expected one outside a checkout.")
    folder: Path = RESULTS if arguments.save is True else arguments.save
    kind = JOINT if arguments.joint else RECORDING if arguments.recording else ""
    name = datetime.now(UTC).date().isoformat() + kind
    name += ("-all" if arguments.all else "") + (f"-{arguments.only}" if arguments.only else "")
    path = folder / folder_name(device) / f"{name}.json"
    check_output(path, folder=False)
    if path.exists():
        raise InputError(f"{path} is there already, and is not replaced: move or remove it.")
    return path

"""Time the kernels of this machine, or the recording of whole denoisers, and print the ratios.

Without files: checks every provider's result, times all of them in turns and prints memattn with
statistics by each rival; lower is better. With files that `--save` wrote: shows those instead.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from memattn.errors import InputError
from memattn.ops.dispatch import BACKENDS

if TYPE_CHECKING:
    from memattn.benchmarks.results import Results

_TIMING = ("recording", "all", "only", "device", "backend", "anyway", "save")  # options


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
        "--all", action="store_true", help="also PixArt, Sana, fp16, and the larger denoisers"
    )
    parser.add_argument(
        "--only", default="", metavar="NAME", help="layers whose name contains this"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="cuda where there is one")
    parser.add_argument("--backend", choices=BACKENDS, help="judge this one (auto's choice)")
    parser.add_argument("--anyway", action="store_true", help="time on a busy machine too")
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
    from memattn.cli.bench_tables import print_results

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
            print_results(load(path))


def _draw(runs: "list[Results]", out: Path) -> None:
    """Draw the one run of the kernels among these."""
    from memattn.benchmarks.figure import figure
    from memattn.cli.targets import check_output
    from memattn.whole import whole_file

    kernels = [results for results in runs if results.timings]
    if len(kernels) != 1:
        raise InputError(f"got {len(kernels)} runs of the kernels to draw, expected one file.")
    check_output(out, folder=False)
    with whole_file(out) as fresh:
        fresh.write_text(figure(kernels[0]), encoding="utf-8")
    print(f"figure: {out}")


def _time(arguments: argparse.Namespace) -> None:
    """Check that timing makes sense here, time, print, save."""
    from memattn.benchmarks import session

    session.check_installed()
    import torch

    from memattn.benchmarks.busy import why_busy
    from memattn.cli.bench_tables import print_results

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("got --device cuda, expected cpu: torch finds no GPU here.")
    options = ["--device", device, *(["--every"] if arguments.all else [])]
    if arguments.recording:
        _refuse_kernel_options(arguments)
    else:
        options += _kernel_options(arguments, device)
    folder = _folder(arguments)
    reason = None if arguments.anyway else why_busy(device)
    if reason is not None:
        raise InputError(
            f"this machine is busy: {reason}, and times would be theirs as well; wait, or time all "
            "the same with --anyway."
        )
    suite = session.RECORDING if arguments.recording else session.KERNELS
    results = session.run(suite, options)
    print_results(results)
    if folder is not None:
        _save(results, folder, arguments)


def _kernel_options(arguments: argparse.Namespace, device: str) -> list[str]:
    """What the suite of the kernels is told, once it is known that there is something to time."""
    from memattn.benchmarks.cases import cases
    from memattn.benchmarks.providers import backends

    chosen = cases(device, every=arguments.all, only=arguments.only)
    if not chosen:
        known = dict.fromkeys(c.shape.name for c in cases(device, every=arguments.all, only=""))
        raise InputError(
            f"got --only {arguments.only}, expected part of one of {', '.join(known)}."
        )
    options = ["--only", arguments.only] if arguments.only else []
    if arguments.backend is not None:
        for case in chosen:
            reason = backends(case)[arguments.backend]
            if reason is not None:
                raise InputError(
                    f"got --backend {arguments.backend}, which cannot run {case.name}: {reason}."
                )
        options += ["--backend", arguments.backend]
    return options


def _refuse_kernel_options(arguments: argparse.Namespace) -> None:
    for name in ("only", "backend"):
        if getattr(arguments, name):
            raise InputError(f"got --{name} with --recording, expected one of them.")


def _folder(arguments: argparse.Namespace) -> Path | None:
    """Where results go, found out before anything is timed."""
    from memattn.benchmarks.published import RESULTS
    from memattn.cli.targets import check_output

    if arguments.save is None:
        return None
    folder: Path = RESULTS if arguments.save is True else arguments.save
    if arguments.save is True and not RESULTS.is_dir():
        raise InputError("got --save without a folder, expected one outside a checkout.")
    check_output(folder, folder=True)
    return folder


def _save(results: "Results", folder: Path, arguments: argparse.Namespace) -> None:
    """Write the file; a run of a part has a name of its own and never replaces a whole one."""
    from memattn.benchmarks.published import RECORDING
    from memattn.benchmarks.results import save

    name = results.date + (RECORDING if arguments.recording else "")
    for part in (arguments.only, arguments.backend):
        name += f"-{part}" if part else ""
    path = folder / results.machine["folder"] / f"{name}.json"
    save(results, path)
    print(f"\nresults: {path}")

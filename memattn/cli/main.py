"""Entry point of the `memattn` command."""

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

import memattn
from memattn.cli import bench, calibrate, demo, detect, evaluate, info, methods, testbed
from memattn.errors import MemattnError

_FAILED = 2
_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C
_GOES_ON = ("calibrate", "evaluate")  # they keep every finished batch
_PIPE_CLOSED = 141  # 128 + SIGPIPE, what a shell reports where `| head` had read enough

# Order of the help text. Each module has `configure(parser)`, `run(arguments)` and a docstring
# whose first line is the command's help; what takes long to import is imported in `run`.
COMMANDS: dict[str, ModuleType] = {
    "demo": demo,
    "detect": detect,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "methods": methods,
    "info": info,
    "testbed": testbed,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line without the program's name; by default the process's own.

    Returns:
        Exit code: 0, 2 after an error that was answered in one sentence on stderr, 130 after
        Ctrl-C, or 141 if whoever read stdout stopped reading.
    """
    parsed = _parser().parse_args(arguments)
    try:
        COMMANDS[parsed.command].run(parsed)
        sys.stdout.flush()
    except MemattnError as error:
        print(f"memattn {parsed.command}: {error}", file=sys.stderr)
        return _FAILED
    except BrokenPipeError:
        # Python flushes stdout once more when it ends, and must not find the closed pipe there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PIPE_CLOSED
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        reason = error.strerror or str(error)
        print(f"memattn {parsed.command}: {reason}{where}.", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        after = "; the same command goes on after the last finished batch"
        how = f"interrupted{after if parsed.command in _GOES_ON else ''}"
        print(f"memattn {parsed.command}: {how}.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    """The parser with every command's options."""
    parser = argparse.ArgumentParser(
        prog="memattn",
        description="Says when a diffusion model hands back its training images.",
    )
    parser.add_argument("--version", action="version", version=f"memattn {memattn.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        summary, _, description = (module.__doc__ or "").partition("\n")
        subparser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n{description}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(subparser)
    return parser

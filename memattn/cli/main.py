"""Entry point of the `memattn` command."""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

import memattn
from memattn.cli import calibrate, demo, detect, info, methods, testbed
from memattn.errors import MemattnError

_FAILED = 2
_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

# Order of the help text. Each module has `configure(parser)`, `run(arguments)` and a docstring
# whose first line is the command's help; what takes long to import is imported in `run`.
COMMANDS: dict[str, ModuleType] = {
    "demo": demo,
    "detect": detect,
    "calibrate": calibrate,
    "methods": methods,
    "info": info,
    "testbed": testbed,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Command line without the program's name; by default the process's own.

    Returns:
        Exit code: 0, 2 after an error that was answered in one sentence on stderr, or 130 after
        Ctrl-C.
    """
    parsed = _parser().parse_args(arguments)
    try:
        COMMANDS[parsed.command].run(parsed)
    except MemattnError as error:
        print(f"memattn {parsed.command}: {error}", file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print(f"memattn {parsed.command}: interrupted.", file=sys.stderr)
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

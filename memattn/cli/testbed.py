"""Train the testbed, check its truth, or draw a sheet of samples.

`train` goes on from whatever its folder holds, and writes a finished testbed to FOLDER/data.
`verify` samples every shown prompt from four seeds and compares with the manifest.
`samples` draws training pictures and samples of every group side by side.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from memattn.cli.tables import table
from memattn.errors import TestbedError

if TYPE_CHECKING:
    from memattn.testbed import Manifest
    from memattn.testbed.verification import Verification


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="Train a testbed, resuming where it was interrupted.")
    train.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    train.add_argument("--seed", type=int, default=0, help="Seed of pool, groups and weights.")
    verify = actions.add_parser("verify", help="Check which prompts are copies.")
    samples = actions.add_parser("samples", help="Draw a sheet of samples to look at.")
    samples.add_argument("--out", type=Path, required=True, metavar="PNG")
    for action in (verify, samples):
        action.add_argument(
            "--data", type=Path, metavar="FOLDER", help="A trained testbed (default: packaged)."
        )


def run(arguments: argparse.Namespace) -> None:
    """Run one action."""
    {"train": _train, "verify": _verify, "samples": _samples}[arguments.action](arguments)


def _train(arguments: argparse.Namespace) -> None:
    from memattn.testbed import Recipe, load_manifest
    from memattn.testbed.training import publish, train

    recipe = Recipe(seed=arguments.seed)
    data = arguments.out / "data"
    verification = publish(train(arguments.out, recipe), recipe, data)
    _print(verification, load_manifest(data))


def _verify(arguments: argparse.Namespace) -> None:
    from memattn.testbed import load_manifest, load_pipeline
    from memattn.testbed.manifest import DATA
    from memattn.testbed.verification import verify

    data = arguments.data or DATA
    manifest = load_manifest(data)
    verification = verify(load_pipeline(data), manifest)
    _print(verification, manifest)
    claimed = {entry.prompt: entry.is_memorized for entry in manifest.shown}
    found = {e.prompt: e.is_memorized for e in manifest.with_copies(verification.copies).shown}
    wrong = [prompt for prompt in claimed if claimed[prompt] != found[prompt]]
    if wrong:
        raise TestbedError(
            f"{len(wrong)} of {len(claimed)} prompts differ from the manifest, first: {wrong[0]!r} "
            f"is {'' if found[wrong[0]] else 'not '}a verified copy here"
        )


def _samples(arguments: argparse.Namespace) -> None:
    from memattn.testbed import load_manifest, load_pipeline
    from memattn.testbed.manifest import DATA
    from memattn.testbed.sheet import save_sheet

    data = arguments.data or DATA
    save_sheet(load_pipeline(data), load_manifest(data), arguments.out)
    print(f"wrote {arguments.out}")


def _print(verification: "Verification", manifest: "Manifest") -> None:
    thresholds = manifest.thresholds
    print(
        table(
            ("group", "copies", "prompts"),
            [(g, str(n), str(of)) for g, n, of in verification.summary(manifest)],
        )
    )
    print(
        f"copy: distance below {thresholds.whole:.3f} (whole picture), "
        f"{thresholds.inside:.3f} (template region), in 3 of 4 seeds"
    )

"""Train the testbed, check its truth, or draw a sheet of samples.

`train` goes on from whatever its folder holds, and writes a finished testbed to FOLDER/data.
`verify` samples every shown prompt from four seeds, every ordinary one from one (and what gave a
copy from four), and fails if more or other prompts are copies than the manifest says, or if what a
testbed has to reach is missed.
`samples` draws training pictures and samples of every group side by side.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from memattn.cli.options import seed
from memattn.cli.tables import table
from memattn.cli.targets import check_output
from memattn.errors import TestbedError

if TYPE_CHECKING:
    from memattn.testbed import Manifest
    from memattn.testbed.verification import Verification


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions and their options."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    train = actions.add_parser("train", help="Train a testbed, resuming where it was interrupted.")
    train.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    train.add_argument(
        "--permutation", type=seed, default=0, help="Seed that assigns scenes to groups (0)."
    )
    train.add_argument(
        "--control", action="store_true", help="Without duplicates: show every picture once."
    )
    train.add_argument(
        "--towers", type=Path, metavar="FOLDER", help="Training to take the first two stages from."
    )
    verify = actions.add_parser("verify", help="Check which prompts are copies.")
    samples = actions.add_parser("samples", help="Draw a sheet of samples to look at.")
    samples.add_argument("--out", type=Path, required=True, metavar="PNG")
    for action in (train, verify):
        action.add_argument("--device", default="cpu", help="Torch device, e.g. cuda:0 (cpu).")
    for action in (verify, samples):
        action.add_argument(
            "--data", type=Path, metavar="FOLDER", help="A trained testbed (default: packaged)."
        )


def run(arguments: argparse.Namespace) -> None:
    """Run one action."""
    {"train": _train, "verify": _verify, "samples": _samples}[arguments.action](arguments)


def _train(arguments: argparse.Namespace) -> None:
    from memattn.cli.pipelines import quiet_libraries, torch_device

    with quiet_libraries():
        from memattn.testbed import Recipe, load_manifest
        from memattn.testbed.training import publish, train, train_attributes

    data = arguments.out / "data"
    check_output(data, folder=True)
    recipe = Recipe(permutation=arguments.permutation)
    command = f"memattn testbed train --out FOLDER --permutation {recipe.permutation}"
    if arguments.control:
        recipe, command = recipe.without_duplicates(), f"{command} --control"
    device = str(torch_device(arguments.device))
    pipeline = train(arguments.out, recipe, arguments.towers, device)
    attributes = train_attributes(pipeline.vae, recipe, arguments.out)
    _print(publish(pipeline, attributes, recipe, command, data, device), load_manifest(data))


def _verify(arguments: argparse.Namespace) -> None:
    from memattn.cli.pipelines import quiet_libraries, torch_device

    with quiet_libraries():
        from memattn.testbed import load_manifest, load_pipeline
        from memattn.testbed.manifest import DATA
        from memattn.testbed.verification import verify

        data = arguments.data or DATA
        manifest, pipeline = load_manifest(data), load_pipeline(data)
    verification = verify(pipeline.to(torch_device(arguments.device)), manifest)
    _print(verification, manifest)
    found = verification.fill(manifest)
    wrong = [
        (entry.prompt, "is" if entry.is_memorized else "is not")
        for entry, claimed in zip(found.shown, manifest.shown, strict=True)
        if entry.is_memorized != claimed.is_memorized
    ]
    if wrong:
        prompt, verb = wrong[0]
        raise TestbedError(
            f"{len(wrong)} of {len(manifest.shown)} prompts differ from the manifest, first: "
            f"{prompt!r} {verb} a verified copy here"
        )
    for name, sentence in (
        ("false_copies", "ordinary prompts gave copies that the manifest does not list"),
        ("rigid", "template prompts did not vary outside their region, unlike in the manifest"),
    ):
        new = sorted(set(getattr(found, name)) - set(getattr(manifest, name)))
        if new:
            raise TestbedError(f"{len(new)} {sentence}, first: {new[0]!r}")
    bar = verification.bar(manifest)
    missed = [statement for statement, met in bar if not met]
    if missed:
        raise TestbedError(
            f"got {len(missed)} of {len(bar)} lines of the bar missed ({'; '.join(missed)}), "
            "expected all of them met."
        )


def _samples(arguments: argparse.Namespace) -> None:
    from memattn.cli.pipelines import quiet_libraries

    with quiet_libraries():
        from memattn.testbed import load_manifest, load_pipeline
        from memattn.testbed.manifest import DATA
        from memattn.testbed.sheet import save_sheet

    check_output(arguments.out, folder=False)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    data = arguments.data or DATA
    with quiet_libraries():
        pipeline = load_pipeline(data)
    save_sheet(pipeline, load_manifest(data), arguments.out)
    print(f"wrote {arguments.out}")


def _print(verification: "Verification", manifest: "Manifest") -> None:
    from memattn.testbed.manifest import VERIFIED_COPIES
    from memattn.testbed.verification import SEEDS

    rows = [(name, str(n), str(of)) for name, n, of in verification.summary(manifest)]
    print(table(("group", "copies", "prompts"), rows, right=(1, 2)))
    print(
        f"copy: distance below {manifest.thresholds.whole:.3f} (whole picture) or "
        f"{manifest.thresholds.inside:.3f} (template region), in at least {VERIFIED_COPIES} of "
        f"{len(SEEDS)} seeds;\nordinary: of any training picture, below "
        f"{manifest.thresholds.unrelated:.2f} of these distances"
    )
    for prompt, copies in verification.false_copies.items():
        print(f"ordinary, but a copy in {copies} of {len(SEEDS)} seeds, so left out: {prompt}")
    print(f"templates that do not vary outside their region: {len(verification.rigid)}")
    for statement, met in verification.bar(manifest):
        print(f"{statement}: {'met' if met else 'missed'}")

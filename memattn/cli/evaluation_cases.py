"""Which prompts of a testbed, or of a user's files, play which part in an evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING

from memattn.cli.prompts import check_distinct, read_prompts
from memattn.detectors import DETECTORS, Detector, LayerEntropy
from memattn.errors import InputError, TestbedError
from memattn.evaluation.calibration import fewest_samples
from memattn.evaluation.cases import Case, Role

if TYPE_CHECKING:
    from memattn.testbed import Entry, Manifest

# Beside every method's default stands the entropy of layer 9, in the first up block with
# cross-attention: the telling layer of a trial before the testbed's first training, chosen before
# anything was measured on it.
TESTBED_DETECTORS: tuple[Detector, ...] = (*DETECTORS, LayerEntropy(layer=9))

_ORDER: tuple[Role, ...] = ("calibration", "memorized", "ordinary", "other")
_SHOWN_OFTEN = ("verbatim", "template", "ladder")


def testbed_cases(manifest: "Manifest", first_seed: int) -> tuple[Case, ...]:
    """All prompts of a testbed, role by role.

    Memorized are verified copies only. Ordinary prompts that gave a copy of some training picture
    are left out: they are neither.

    Args:
        manifest: The testbed's manifest.
        first_seed: The seeds of the verification are skipped from here on, so that by default no
            image that decided who is memorized is scored; the prompts follow in the manifest's
            order.

    Returns:
        The cases.

    Raises:
        TestbedError: If no prompt is a verified copy, or none is ordinary.
    """
    from memattn.testbed.verification import SEEDS

    rigid = set(manifest.rigid)
    cases = [
        Case(
            prompt=entry.prompt,
            seed=first_seed + len(SEEDS) + position,
            role=_role(entry),
            group=entry.group,
            showings=entry.showings,
            # Of a rigid template more than the region was learned: its mask would be too small.
            true_mask=None if entry.prompt in rigid else entry.true_mask,
        )
        for position, entry in enumerate(manifest.entries)
        if entry.prompt not in manifest.false_copies
    ]
    for role, what in (("memorized", "verified copy"), ("ordinary", "ordinary prompt")):
        if not any(case.role == role for case in cases):
            raise TestbedError(f"the manifest names no {what}, expected at least one.")
    return tuple(sorted(cases, key=lambda case: _ORDER.index(case.role)))


def file_cases(
    memorized: Path, ordinary: Path, *, first_seed: int, false_positive_rate: float
) -> tuple[Case, ...]:
    """The prompts of a user's two files; of the ordinary ones the first, third, ... calibrate.

    Args:
        memorized: File with prompts that the model has memorized.
        ordinary: File with prompts that it has not.
        first_seed: Seed of the first memorized prompt; the others follow.
        false_positive_rate: The rate that the calibration has to be enough for.

    Returns:
        The cases.

    Raises:
        InputError: If a file cannot be used, a prompt stands there twice, or the ordinary ones are
            too few.
    """
    copied, innocent = read_prompts(memorized), read_prompts(ordinary)
    check_distinct((*copied, *innocent), f"{memorized} and {ordinary}")
    needed = max(2 * fewest_samples(false_positive_rate) - 1, 2)
    if len(innocent) < needed:
        raise InputError(
            f"got {len(innocent)} ordinary prompts in {ordinary}, expected at least {needed} for a "
            f"false-positive rate of {false_positive_rate:g}: every other one calibrates."
        )
    roles: list[tuple[str, Role]] = [(prompt, "memorized") for prompt in copied]
    roles += [(prompt, "ordinary" if n % 2 else "calibration") for n, prompt in enumerate(innocent)]
    cases = [
        Case(prompt, first_seed + n, role, "memorized" if role == "memorized" else "ordinary")
        for n, (prompt, role) in enumerate(roles)
    ]
    return tuple(sorted(cases, key=lambda case: _ORDER.index(case.role)))


def _role(entry: "Entry") -> Role:
    """The part that a testbed's prompt plays."""
    if entry.group == "ordinary":
        return "calibration" if entry.split == "calibration" else "ordinary"
    return "memorized" if entry.group in _SHOWN_OFTEN and entry.is_memorized else "other"

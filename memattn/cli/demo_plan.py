"""What the demo generates: sizes, and which prompts of the manifest it takes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memattn.cli.evaluation_cases import TESTBED_DETECTORS, testbed_cases
from memattn.detectors import Detector
from memattn.errors import TestbedError
from memattn.evaluation.cases import Case

if TYPE_CHECKING:
    from memattn.testbed import Manifest
    from memattn.testbed.groups import Group


@dataclass(frozen=True)
class Plan:
    """How much the demo generates, so that it ends in minutes on two cores.

    Attributes:
        steps: Inference steps.
        batch_size: Images at a time.
        false_positive_rate: Share of ordinary prompts that each threshold may flag.
        calibration: Ordinary prompts behind the thresholds; a false-positive rate of 1 % takes 99.
        ordinary: Ordinary prompts that the detectors are measured on.
        seen_once: Prompts seen once.
        shown: Prompts of each group in the table and the report.
        detectors: What is measured.
    """

    steps: int = 50
    batch_size: int = 8
    false_positive_rate: float = 0.01
    calibration: int = 104
    ordinary: int = 96
    seen_once: int = 24
    shown: "dict[Group, int]" = field(
        default_factory=lambda: {"verbatim": 8, "template": 8, "seen_once": 4, "ordinary": 12}
    )
    detectors: tuple[Detector, ...] = TESTBED_DETECTORS


def choose_cases(manifest: "Manifest", plan: Plan) -> tuple[Case, ...]:
    """The manifest's prompts that the demo takes.

    All verified copies of pictures shown often count as memorized; the ladder is left to
    `memattn evaluate`. Prompts that were shown often and are no verified
    copies, and those seen once, are scored and count as neither memorized nor ordinary.

    Args:
        manifest: The testbed's manifest.
        plan: How many of each.

    Returns:
        The cases.

    Raises:
        TestbedError: If no prompt is a verified copy, or there are too few ordinary ones.
    """
    room = Counter(
        {"calibration": plan.calibration, "ordinary": plan.ordinary, "seen_once": plan.seen_once}
    )
    chosen = []
    for case in testbed_cases(manifest, first_seed=0):
        if case.group == "ladder":
            continue
        part = case.group if case.group == "seen_once" else case.role
        if part in room:
            if room[part] == 0:
                continue
            room[part] -= 1
        chosen.append(case)
    for part in ("calibration", "ordinary"):
        if room[part]:
            wanted = getattr(plan, part)
            raise TestbedError(
                f"the manifest has {wanted - room[part]} ordinary prompts for the {part} part, "
                f"expected {wanted}."
            )
    return tuple(chosen)

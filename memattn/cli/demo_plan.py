"""What the demo generates: sizes, and which prompts of the manifest play which part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from memattn.detectors import DETECTORS, Detector, LayerEntropy
from memattn.errors import TestbedError
from memattn.evaluation.study import Case, Cases

if TYPE_CHECKING:
    from memattn.testbed import Entry, Manifest
    from memattn.testbed.groups import Group


@dataclass(frozen=True)
class Plan:
    """How much the demo generates, so that it ends in minutes on two cores.

    Attributes:
        steps: Inference steps.
        batch_size: Images at a time.
        false_positive_rate: Share of ordinary prompts that each threshold may flag.
        first_call_calibration: Ordinary prompts behind the thresholds of one-call detectors.
        whole_run_calibration: Ordinary prompts behind the other thresholds; a false-positive rate
            of 1 % takes 99.
        first_call_ordinary: Ordinary prompts that one-call detectors are measured on.
        whole_run_ordinary: Ordinary prompts that the others are measured on.
        shown: Prompts of each group in the table and the report.
        detectors: What is measured. Beside every method's default stands the entropy of layer 9,
            in the first up block with cross-attention: the telling layer of a trial before the
            testbed's training, chosen before anything was measured on it.
    """

    steps: int = 50
    batch_size: int = 8
    false_positive_rate: float = 0.01
    first_call_calibration: int = 500
    whole_run_calibration: int = 104
    first_call_ordinary: int = 500
    whole_run_ordinary: int = 48
    shown: "dict[Group, int]" = field(
        default_factory=lambda: {"verbatim": 8, "template": 8, "seen_once": 4, "ordinary": 12}
    )
    detectors: tuple[Detector, ...] = (*DETECTORS, LayerEntropy(layer=9))


@dataclass(frozen=True)
class Parts:
    """The demo's prompts.

    Attributes:
        first_call: Prompts for one-call detectors.
        whole_run: Prompts for the others.
        reported: The manifest's entries of `whole_run.reported`.
    """

    first_call: Cases
    whole_run: Cases
    reported: "tuple[Entry, ...]"


def choose_parts(manifest: "Manifest", plan: Plan) -> Parts:
    """Assign the manifest's prompts.

    Memorized are verified copies only. Prompts that were shown often and are no verified copies,
    and those seen once, are scored and count as neither memorized nor ordinary.

    Args:
        manifest: The testbed's manifest.
        plan: How many of each.

    Returns:
        The prompts.

    Raises:
        TestbedError: If no prompt is a verified copy, or there are too few ordinary ones.
    """
    shown_often = manifest.select("verbatim", "template")
    memorized = [entry for entry in shown_often if entry.is_memorized]
    others = [entry for entry in shown_often if not entry.is_memorized]
    others += manifest.select("seen_once")
    calibration = manifest.select("ordinary", split="calibration")
    ordinary = manifest.select("ordinary", split="reporting")
    if not memorized:
        raise TestbedError("the manifest names no verified copy, expected at least one.")
    _require(calibration, max(plan.first_call_calibration, plan.whole_run_calibration))
    _require(ordinary, max(plan.first_call_ordinary, plan.whole_run_ordinary))
    seeds = {id(entry): position for position, entry in enumerate(manifest.entries)}

    def cases(chosen: "Sequence[Entry]") -> tuple[Case, ...]:
        return tuple(Case(entry.prompt, seeds[id(entry)]) for entry in chosen)

    few = ordinary[: plan.whole_run_ordinary]
    return Parts(
        first_call=Cases(
            calibration=cases(calibration[: plan.first_call_calibration]),
            memorized=cases(memorized),
            ordinary=cases(ordinary[: plan.first_call_ordinary]),
        ),
        whole_run=Cases(
            calibration=cases(calibration[: plan.whole_run_calibration]),
            memorized=cases(memorized),
            ordinary=cases(few),
            others=cases(others),
        ),
        reported=(*memorized, *few, *others),
    )


def _require(entries: "Sequence[Entry]", count: int) -> None:
    """Refuse a manifest with too few ordinary prompts of one split."""
    if len(entries) < count:
        raise TestbedError(
            f"the manifest has {len(entries)} ordinary prompts of one split, expected {count}."
        )

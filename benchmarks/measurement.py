"""Checks and times all providers of one case."""

from functools import partial

import torch

from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.providers import Provider
from memattn.benchmarks.turns import TURNS, Timeable, in_turns
from memattn.benchmarks.verification import truth, verify


def measure(
    case: Case, providers: list[Provider], *, turns: int = TURNS
) -> dict[str, list[list[float]] | Exception]:
    """Time the providers whose result is right.

    Args:
        case: What they compute.
        providers: Who computes it.
        turns: How many turns each has.

    Returns:
        By the provider's name, seconds of the rounds of each turn; or why it was not timed.
    """
    outcomes: dict[str, list[list[float]] | Exception] = {}
    with torch.inference_mode():
        tensors = inputs(case)
        expected = truth(case)
        timeables = {}
        for provider in providers:
            try:
                verify(provider, tensors, expected)
            except Exception as error:  # the test of this one provider raises it
                outcomes[provider.name] = error
            else:
                timeables[provider.name] = Timeable(
                    partial(provider.call, *tensors), provider.chosen
                )
        del expected  # up to gigabytes that the timed calls should not compete with
        outcomes.update(in_turns(timeables, case.device, turns=turns))
    return outcomes

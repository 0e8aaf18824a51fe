"""Checks and times all providers of one case."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.graphs import Graph, calls_per_graph, cold_graph, warm_graph
from memattn.benchmarks.providers import Attended, Provider
from memattn.benchmarks.turns import TURNS, Timeable, in_turns, wall_seconds
from memattn.benchmarks.verification import Truth, check, first_result, truth


class Measured(NamedTuple):
    """One provider's times on one case.

    Attributes:
        eager: Seconds of the rounds of each turn, as a program sees them.
        warm: Seconds that the GPU needs, with its cache warm; empty on the CPU.
        cold: The same with a cold cache.
        not_captured: Why warm and cold are empty on a GPU, or "".
    """

    eager: list[list[float]]
    warm: list[list[float]]
    cold: list[list[float]]
    not_captured: str


def measure(
    case: Case, providers: list[Provider], *, turns: int = TURNS
) -> dict[str, Measured | Exception]:
    """Time the providers whose result is right.

    Args:
        case: What they compute.
        providers: Who computes it.
        turns: How many turns each has.

    Returns:
        By the provider's name, its times; or why it was not timed.
    """
    outcomes: dict[str, Measured | Exception] = {}
    refusals: dict[str, str] = {}
    timeables: dict[tuple[str, str], Timeable] = {}
    with torch.inference_mode():
        tensors = inputs(case)
        expected = truth(case)
        for provider in providers:
            try:
                check(provider, first_result(provider, tensors), expected)
                eager = partial(wall_seconds, partial(provider.call, *tensors), case.device)
                timeables[provider.name, "eager"] = Timeable(eager, provider.chosen)
                for clock, graph in _graphs(case, provider, tensors, expected):
                    if isinstance(graph, str):
                        refusals[provider.name] = graph
                    else:
                        timeables[provider.name, clock] = Timeable(graph.seconds, provider.chosen)
            except Exception as error:  # the test of this one provider raises it
                outcomes[provider.name] = error
                for clock in ("eager", "warm", "cold"):
                    timeables.pop((provider.name, clock), None)
        del expected  # up to gigabytes that the timed calls should not compete with
        times = in_turns(timeables, case.device, turns=turns)
    for provider in providers:
        name = provider.name
        if name not in outcomes:
            warm, cold = (times.get((name, clock), []) for clock in ("warm", "cold"))
            outcomes[name] = Measured(times[name, "eager"], warm, cold, refusals.get(name, ""))
    return outcomes


def _graphs(
    case: Case, provider: Provider, tensors: tuple[Tensor, ...], expected: Truth
) -> Iterator[tuple[str, Graph[Attended] | str]]:
    """Both graphs of a provider by clock, or why it has none; a replay's result is checked too."""
    if case.device != "cuda":
        return
    calls = calls_per_graph(case.shape.bytes(case.dtype))
    for clock, capture in (("warm", warm_graph), ("cold", cold_graph)):
        try:
            with provider.chosen():
                graph = capture(provider.call, tensors, calls)
        except RuntimeError as error:
            torch.cuda.synchronize()
            yield clock, str(error).splitlines()[0]
            return
        check(provider, graph.result, expected)
        yield clock, graph

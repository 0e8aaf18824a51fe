"""The fixture that owns correct timing, and what every benchmark is told about itself."""

import statistics
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import pytest
import torch

from memattn.benchmarks.cases import Case
from memattn.benchmarks.graphs import node_seconds
from memattn.benchmarks.limits import limits
from memattn.benchmarks.machine import facts
from memattn.benchmarks.measurement import Measured, measure
from memattn.benchmarks.providers import Provider, Unavailable, absent
from memattn.benchmarks.turns import Playback

_PLAYBACK = Playback()
_FACTS: pytest.StashKey[dict[str, Any]] = pytest.StashKey()
_SELECTED: pytest.StashKey[dict[Case, list[Provider]]] = pytest.StashKey()


class _Benchmark(Protocol):
    """What is used here of pytest-benchmark's untyped fixture."""

    group: str
    extra_info: dict[str, object]

    def pedantic(self, target: Callable[[], object], *, rounds: int) -> object: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which cases are timed, and where."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    group = parser.getgroup("memattn")
    group.addoption("--device", choices=("cpu", "cuda"), default=default)
    group.addoption("--every", action="store_true", help="also what takes long")
    group.addoption("--only", default="", metavar="NAME", help="shapes whose name contains this")


def pytest_configure(config: pytest.Config) -> None:
    """Note what is measured, before anybody changes the checkout under a long run."""
    device = config.getoption("device")
    untimed = [(name, "", reason) for name, reason in absent(device).items()]
    config.stash[_FACTS] = {**facts(device), "untimed": untimed, "failed": []}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a benchmark that takes `case` and `provider` once for each pair, case by case.

    Its module says which: `CASES` and `PROVIDERS`.
    """
    if not {"case", "provider"} <= set(metafunc.fixturenames):
        return
    option = metafunc.config.getoption
    pairs = [
        pytest.param(
            case,
            provider,
            id=f"{case.name}-{provider.name}",
            marks=pytest.mark.benchmark(group=case.name, timer=_PLAYBACK.now, min_rounds=1),
        )
        for case in metafunc.module.CASES(
            option("device"), every=option("every"), only=option("only")
        )
        for provider in metafunc.module.PROVIDERS(case)
    ]
    metafunc.parametrize(("case", "provider"), pairs)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which providers of each case are timed, once -k and the like have chosen."""
    selected: dict[Case, list[Provider]] = defaultdict(list)
    for item in session.items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if {"case", "provider"} <= set(parameters):
            selected[parameters["case"]].append(parameters["provider"])
    session.config.stash[_SELECTED] = selected


def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> None:
    """Note who failed at what, and why in one line: the results say so as well."""
    if call.excinfo is None or call.excinfo.errisinstance(pytest.skip.Exception):
        return
    parameters: dict[str, Any] = item.callspec.params
    if "case" in parameters:
        who, where = parameters["provider"].name, parameters["case"].name
    else:
        who = parameters["what"]
        where = item.callspec.id.removesuffix(f"-{who}")
    reason = call.excinfo.exconly().splitlines()[0]
    item.config.stash[_FACTS]["failed"].append((who, where, reason))


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, object]
) -> None:
    """Add to pytest-benchmark's facts about the machine those that matter here."""
    machine_info["memattn"] = config.stash[_FACTS]


@pytest.fixture(scope="session")
def _limits(request: pytest.FixtureRequest) -> Iterator[None]:
    """Adds the machine's limits to its facts: the best of before the first case and after the last.

    Not in between, where the effort would heat the machine under the next case. On a GPU also what
    a node of a graph costs.
    """
    device = request.config.getoption("device")
    told = request.config.stash[_FACTS]
    if device == "cuda":
        told["node_us"] = node_seconds() * 1e6
    before = told["limits"] = limits(device)
    yield
    after = limits(device)
    # A dtype may be left out of one of them.
    told["limits"] = {name: max(before.get(name, 0), after.get(name, 0)) for name in before | after}


@pytest.fixture(scope="session")
def _outcomes() -> dict[Case, Mapping[str, Measured | Exception]]:
    """What was measured of each case, all of its providers at once."""
    return {}


@pytest.fixture
def timed(
    benchmark: _Benchmark,
    request: pytest.FixtureRequest,
    _limits: None,
    _outcomes: dict[Case, Any],
) -> Callable[[Case, Provider], None]:
    """Times a provider on a case, in turns with all others of the case, if its result is right.

    Fixed inputs, laid out as a processor passes them; inference mode; warmed up; a GPU is waited
    for inside each timed call; no garbage collection. The first provider of a case that is asked
    for has all of them timed.
    """

    def run(case: Case, provider: Provider) -> None:
        if case not in _outcomes:
            selected = request.config.stash[_SELECTED][case]
            try:
                _outcomes[case] = measure(case, selected)
            except Exception as error:  # of none in particular: each test of the case raises it
                traceback.clear_frames(error.__traceback__)  # which hold the case's tensors
                _outcomes[case] = dict.fromkeys([each.name for each in selected], error)
        outcome = _outcomes[case][provider.name]
        if isinstance(outcome, Unavailable):
            untimed = (provider.name, case.name, str(outcome))
            request.config.stash[_FACTS]["untimed"].append(untimed)
            pytest.skip(str(outcome))
        if isinstance(outcome, Exception):
            raise outcome
        rounds = [seconds for turn in outcome.eager for seconds in turn]
        _PLAYBACK.load(rounds)
        benchmark.extra_info.update(_extra_info(case, provider, outcome))
        benchmark.pedantic(_PLAYBACK.next_round, rounds=len(rounds))

    return run


def _extra_info(case: Case, provider: Provider, measured: Measured) -> dict[str, object]:
    """What tables and figures need to know of one benchmark."""
    shape = case.shape
    return {
        "kind": "kernel",
        "provider": provider.name,
        "gives": provider.kind,
        "dtype": case.dtype_name,
        "shape": shape.name,
        "keys": shape.keys,
        "text": shape.text,
        "bytes": shape.bytes(case.dtype),
        "flops": shape.flops,
        "turns_us": _microseconds(measured.eager),
        "warm_us": _microseconds(measured.warm),
        "cold_us": _microseconds(measured.cold),
        "not_captured": measured.not_captured,
    }


def _microseconds(turns: list[list[float]]) -> list[float]:
    """The median of each turn."""
    return [statistics.median(turn) * 1e6 for turn in turns]

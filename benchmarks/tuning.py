"""Find the fastest tiles of the Triton kernels on this GPU, for real layers.

    python -m memattn.benchmarks.tuning --seconds 300 --out tiles.json

Nothing is tuned when memattn runs: what is found here is written into kernels/triton/tiles.py by
hand. Worker processes compile the candidates into Triton's cache; then every candidate's result is
compared with the truth, and all those of a layer are timed in turns, without the host.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from memattn.benchmarks.cases import Case
from memattn.benchmarks.graphs import calls_per_graph, cold_graph, warm_graph
from memattn.benchmarks.machine import cores, facts
from memattn.benchmarks.tuning_kernels import KERNELS, Group, candidates, problem, with_tiles
from memattn.benchmarks.turns import Timeable, in_turns
from memattn.kernels.triton.tiles import Tiles
from memattn.whole import whole_file

_TURNS = 2
_DTYPE = "bf16"  # float16 takes the same instructions


class Timed(NamedTuple):
    """One candidate on one layer.

    Attributes:
        shape: The layer's name.
        tiles: The candidate.
        warm_us: Microseconds of its kernels with a warm cache.
        cold_us: With a cold one.
    """

    shape: str
    tiles: Tiles
    warm_us: float
    cold_us: float


class Failed(NamedTuple):
    """A candidate that cannot be launched, or whose result is wrong, and why."""

    shape: str
    tiles: Tiles
    reason: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Sweep, print a table for each kind of call, and write everything that was found."""
    parser = argparse.ArgumentParser(prog="python -m memattn.benchmarks.tuning")
    parser.add_argument("--seconds", type=float, default=300.0, help="begin no layer after that")
    parser.add_argument("--only", default="", help="kernels or layers whose name contains this")
    parser.add_argument("--out", type=Path, help="write what was found to this JSON file")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("got no CUDA device, expected one: tiles are tuned where they are used.")
    deadline = time.monotonic() + options.seconds
    found: dict[Group, list[Timed | Failed]] = {}
    left: list[str] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(cores(), 14), mp_context=spawn) as workers:
        for group, cases in groups(options.only).items():
            found[group] = []
            refusals = None
            for case in cases:
                if time.monotonic() > deadline:
                    left.append(f"{group.kernel} {case.name}")
                    continue
                if refusals is None:
                    refusals = _compile(workers, group, case)
                found[group] += sweep(group, case, refusals)
            if found[group]:
                print(f"\n{group_lines(group, found[group])}", flush=True)
                if options.out is not None:
                    _write(found, options.out)
    if left:
        print(f"\nNo time was left for {', '.join(left)}.")


def groups(only: str) -> dict[Group, list[Case]]:
    """The layers of each call that has tiles of its own, in the order they are tuned."""
    grouped: dict[Group, list[Case]] = defaultdict(list)
    for name, kernel in KERNELS.items():
        for shape in kernel.shapes:
            if only in name or only in shape.name:
                group = Group(name, kernel.length(shape), shape.dim, _DTYPE)
                grouped[group].append(Case(shape, _DTYPE, "cuda"))
    return dict(grouped)


def _compile(workers: ProcessPoolExecutor, group: Group, case: Case) -> dict[Tiles, str]:
    """Compile every candidate of a group in the workers; those that fail, and why."""
    tried = candidates(group)
    reasons = workers.map(partial(why_not, group, case), tried)
    return {tiles: why for tiles, why in zip(tried, reasons, strict=True) if why}


def why_not(group: Group, case: Case, tiles: Tiles) -> str:
    """Run one candidate, which compiles it; what goes wrong, or ""."""
    try:
        with torch.inference_mode(), with_tiles(group.kernel, tiles):
            task = problem(group.kernel, case, judged=False)
            task.call(*task.inputs)
            if case.device == "cuda":
                torch.cuda.synchronize()
    except Exception as error:  # the compiler's, the driver's: none ends the sweep
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def sweep(group: Group, case: Case, refusals: dict[Tiles, str]) -> list[Timed | Failed]:
    """Check and time on one layer all candidates that were not refused."""
    failed: list[Timed | Failed] = []
    timeables: dict[tuple[Tiles, str], Timeable] = {}
    calls = calls_per_graph(case.shape.bytes(case.dtype))
    with torch.inference_mode():
        task = problem(group.kernel, case, judged=True)
        for tiles in candidates(group):
            if tiles in refusals:
                failed.append(Failed(case.shape.name, tiles, refusals[tiles]))
                continue
            with with_tiles(group.kernel, tiles):
                graphs = {
                    "warm": warm_graph(task.call, task.inputs, calls),
                    "cold": cold_graph(task.call, task.inputs, calls),
                }
            try:
                for graph in graphs.values():
                    task.check(graph.result)
            except AssertionError as error:
                failed.append(Failed(case.shape.name, tiles, str(error)))
                continue
            for clock, graph in graphs.items():
                timeables[tiles, clock] = Timeable(graph.seconds, torch.inference_mode)
        times = in_turns(timeables, "cuda", turns=_TURNS)
    timed = [
        Timed(case.shape.name, tiles, *(_microseconds(times[tiles, c]) for c in ("warm", "cold")))
        for tiles in dict.fromkeys(tiles for tiles, _ in timeables)
    ]
    return [*timed, *failed]


def _microseconds(turns: Iterable[Sequence[float]]) -> float:
    return round(min(statistics.median(turn) for turn in turns) * 1e6, 3)


def scores(found: Iterable[Timed | Failed]) -> dict[Tiles, float]:
    """By how much each candidate is slower than the best of each layer and cache, in the mean.

    1 is the fastest everywhere. Who failed or was not timed on a layer that another was timed on
    has no score.
    """
    timed = [each for each in found if isinstance(each, Timed)]
    shapes = {each.shape for each in timed}
    slower: dict[Tiles, list[float]] = defaultdict(list)
    for shape in shapes:
        here = [each for each in timed if each.shape == shape]
        for clock in ("warm_us", "cold_us"):
            best = min(getattr(each, clock) for each in here)
            for each in here:
                slower[each.tiles].append(getattr(each, clock) / best)
    means = {
        tiles: statistics.geometric_mean(ratios)
        for tiles, ratios in slower.items()
        if len(ratios) == 2 * len(shapes)
    }
    return dict(sorted(means.items(), key=lambda pair: pair[1]))


def group_lines(group: Group, found: Sequence[Timed | Failed]) -> str:
    """The best candidates of a group and today's tiles, with their times on each layer."""
    ranked = scores(found)
    now = KERNELS[group.kernel].now(group)
    times = {(each.tiles, each.shape): each for each in found if isinstance(each, Timed)}
    shapes = dict.fromkeys(each.shape for each in found)
    lines = [
        f"{group.kernel}, {group.length} keys, D {group.dim}, {group.dtype}: by the best of each "
        "layer and cache; then microseconds with a warm and with a cold cache"
    ]
    for tiles in dict.fromkeys([*list(ranked)[:3], now]):
        mark = "now" if tiles == now else ""
        score = f"{ranked[tiles]:.2f}" if tiles in ranked else "-"
        lines.append(f"  {mark:>3} {score:>5}  {_name(tiles)}")
        lines += [
            f"{'':15}{shape}: {each.warm_us:.1f}, {each.cold_us:.1f}"
            for shape in shapes
            if (each := times.get((tiles, shape)))
        ]
    failed = [each for each in found if isinstance(each, Failed)]
    lines += [f"  not launched or wrong: {_name(each.tiles)}: {each.reason}" for each in failed]
    return "\n".join(lines)


def _name(tiles: Tiles) -> str:
    return ", ".join(f"{name} {value}" for name, value in tiles._asdict().items())


def _write(found: dict[Group, list[Timed | Failed]], out: Path) -> None:
    """Everything that was found, one candidate on one layer a line."""
    rows = [
        json.dumps({**group._asdict(), **each._asdict(), "tiles": each.tiles._asdict()})
        for group, several in found.items()
        for each in several
    ]
    head = json.dumps({"machine": facts("cuda")}, indent=1)
    lines = ",\n  ".join(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as fresh:
        fresh.write_text(f'{head[:-2]},\n "found": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()

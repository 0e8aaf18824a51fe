"""Kernel time on a GPU, without the host: calls in one CUDA graph, whose replays are timed.

A layer's kernels last microseconds, less than launching them takes. Twice for every call: with
inputs that are in the second-level cache because the call before has read them (warm), and with
inputs that are not, because each call has its own and all of them together are larger (cold). In a
pipeline the query was just written and the rest was not read for long.

What a graph's node costs besides what its kernel computes is in every time; `node_seconds` says how
much that is.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

_L2_SIZES = 3  # the calls of one graph move so many times what the cache holds
_FEWEST_CALLS = 8  # so that starting the graph does not count
_WARM_UP = 3
# Cycles that the GPU is kept busy, about 1 ms: it may not come to the graph before the host has
# launched all of it, or it waits, and that would count as the kernels' time; most for those who
# launch many. A launch takes up to a microsecond a node, and a thousand nodes are usual: where this
# was too short, it is tried again with twice as much.
_HEAD_START = 2_000_000
_LONGEST_HEAD_START = 64 * _HEAD_START
_NODES, _NODE_ROUNDS = 512, 9


Result = TypeVar("Result", bound=tuple[Tensor | None, ...])


class Graph(NamedTuple, Generic[Result]):
    """Captured calls.

    Attributes:
        graph: What is replayed.
        result: The last call's, written by a replay.
        calls: How many calls there are.
        kept: What has to live as long as the graph: inputs and results.
    """

    graph: torch.cuda.CUDAGraph
    result: Result
    calls: int
    kept: object

    def seconds(self) -> float:
        """Replay it once, and return what one call took.

        Raises:
            RuntimeError: If the GPU had come to the graph before the host had launched it, whatever
                the head start.
        """
        head_start = _HEAD_START
        while head_start <= _LONGEST_HEAD_START:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(head_start)
            begin.record()
            self.graph.replay()
            was_waited_for = begin.query()
            end.record()
            end.synchronize()
            if not was_waited_for:
                milliseconds: float = begin.elapsed_time(end)
                return milliseconds * 1e-3 / self.calls
            head_start *= 2
        raise RuntimeError(
            f"got a graph whose launch takes longer than {_LONGEST_HEAD_START} cycles, expected "
            "one that the GPU need not wait for."
        )


def calls_per_graph(moved: int) -> int:
    """How many calls that move so many bytes leave nothing of the first one's in the cache."""
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    return max(_FEWEST_CALLS, math.ceil(_L2_SIZES * device.L2_cache_size / moved))


def warm_graph(call: Callable[..., Result], inputs: Sequence[Tensor], calls: int) -> Graph[Result]:
    """Capture calls that all have the same inputs, and write to the same memory."""
    return _capture(call, [inputs] * calls, kept=1)


def cold_graph(call: Callable[..., Result], inputs: Sequence[Tensor], calls: int) -> Graph[Result]:
    """Capture calls that have a copy of the inputs each, and write to memory of their own."""
    return _capture(call, copies(inputs, calls), kept=calls)


def node_seconds() -> float:
    """What a node with one kernel takes in a graph of many, where the kernel has nothing to do."""
    number = torch.zeros(1, device="cuda")
    graph = warm_graph(lambda tensor: (tensor.neg(),), (number,), _NODES)
    graph.seconds()  # the first replay may have to load it
    return statistics.median(graph.seconds() for _ in range(_NODE_ROUNDS))


def copies(tensors: Sequence[Tensor], count: int) -> list[tuple[Tensor, ...]]:
    """The same tensors several times, each in memory of its own and with the same strides."""
    return [tuple(tensor.clone() for tensor in tensors) for _ in range(count)]


def _capture(
    call: Callable[..., Result], inputs: Sequence[Sequence[Tensor]], kept: int
) -> Graph[Result]:
    """Capture one call for each inputs; the last `kept` results are not overwritten by others."""
    outside = torch.cuda.current_stream()
    stream = torch.cuda.Stream()
    stream.wait_stream(outside)
    graph = torch.cuda.CUDAGraph()
    results: list[Result] = []
    try:
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):  # what a library sets up for a new stream is not captured
                call(*inputs[0])
        with torch.cuda.graph(graph, stream=stream):
            for tensors in inputs:
                if len(results) == kept:
                    results.pop(0)
                results.append(call(*tensors))
    finally:
        torch.cuda.set_stream(outside)  # which torch leaves undone when a capture fails
        outside.wait_stream(stream)
    # Nothing was computed yet: what a replay does not write is no result.
    for result in results:
        for tensor in result:
            if tensor is not None:
                tensor.fill_(math.nan)
    graph.replay()
    torch.cuda.synchronize()
    return Graph(graph, results[-1], len(inputs), (inputs, results))

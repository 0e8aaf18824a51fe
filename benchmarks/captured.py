"""One call of a denoiser as a CUDA graph, recorded and not.

That is how a server that knows its shapes runs a denoiser, and what a host cannot slow down. What
a recording does for a call is part of the graph: if it waited for the device, nothing could be
captured.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memattn.benchmarks.denoisers import Denoiser
from memattn.benchmarks.graphs import Graph, warm_graph
from memattn.recording import Recorder, record


class CapturedCall(NamedTuple):
    """A captured call.

    Attributes:
        graph: Its graph, whose result is what the denoiser predicts.
        recorder: Who recorded it, or None; its memory is written to by every replay.
    """

    graph: Graph[tuple[Tensor]]
    recorder: Recorder | None

    @property
    def prediction(self) -> Tensor:
        """What the last replay predicted."""
        return self.graph.result[0]

    def seconds(self) -> float:
        """Replay it, and return what it took."""
        return self.graph.seconds()


def captured_call(denoiser: Denoiser, *, is_recorded: bool) -> CapturedCall:
    """Capture one call, with the arguments that the pipeline's first call has.

    Raises:
        RuntimeError: If it cannot be captured.
    """
    args, kwargs = _first_call(denoiser)
    recorder = None
    with contextlib.ExitStack() as attached, torch.no_grad():
        if is_recorded:
            recorder = record(
                denoiser.unet,
                layout="unconditional+conditional",
                prompt_lengths=[denoiser.prompt_length],
            )
            recorder.attach()
            attached.callback(recorder.detach)

        def call() -> tuple[Tensor]:
            return (denoiser.unet(*args, **{**kwargs, "return_dict": False})[0],)

        return CapturedCall(warm_graph(call, (), 1), recorder)


def _first_call(denoiser: Denoiser) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of the pipeline's first call, on the denoiser's device."""
    calls = []
    keep: Callable[..., None] = lambda _, args, kwargs: calls.append((args, kwargs))  # noqa: E731
    handle = denoiser.unet.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        denoiser.run()
    finally:
        handle.remove()
    (sample, timestep, *others), kwargs = calls[0]
    return (sample, torch.as_tensor(timestep, device=sample.device), *others), kwargs

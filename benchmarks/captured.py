"""One call of a denoiser as a CUDA graph, recorded and not.

That is how a server that knows its shapes runs a denoiser, and what a host cannot slow down. What
a recording does for a call is part of the graph: if it waited for the device, nothing could be
captured.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from memattn.benchmarks.denoisers import Denoiser
from memattn.benchmarks.graphs import Graph, warm_graph
from memattn.recording import Recorder, record


def recorder_of_calls(denoiser: Denoiser) -> Recorder:
    """Records the denoiser's calls, whoever makes them."""
    return record(
        denoiser.unet,
        layout="unconditional+conditional",
        prompt_lengths=[denoiser.prompt_length],
    )


def captured_call(denoiser: Denoiser, recorder: Recorder | None = None) -> Graph[tuple[Tensor]]:
    """Capture one call, with the arguments that the pipeline's first call has.

    Args:
        denoiser: What is called; the graph's result is what it predicts.
        recorder: Attached while the call is captured, or None.

    Raises:
        RuntimeError: If it cannot be captured.
    """
    args, kwargs = _first_call(denoiser)

    def call() -> tuple[Tensor]:
        return (denoiser.unet(*args, **{**kwargs, "return_dict": False})[0],)

    with contextlib.ExitStack() as attached, torch.no_grad():
        if recorder is not None:
            recorder.attach()
            attached.callback(recorder.detach)
        # Every replay reads the arguments, and writes where the recorder keeps its numbers.
        return warm_graph(call, (), 1)._replace(kept=(args, kwargs, recorder))


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

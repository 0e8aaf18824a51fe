"""What is compared with a stock denoiser, and what is read off one run of it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import memattn
from memattn.benchmarks.denoisers import TEXT_TOKENS, Denoiser
from memattn.benchmarks.turns import wall_seconds
from memattn.processors import AttnProcessor
from memattn.recording import record
from memattn.recording.locate import cross_attention_layers
from memattn.records import Record

# Of what the denoised latents differ by, by what they are, both as root mean squares. An attention
# kernel rounds otherwise than torch's, and every layer after it carries that on: measured on the
# denoisers here 3e-6 in float32 and 4e-2 in bfloat16. Without cross-attention it is 0.7.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}


class Seconds(NamedTuple):
    """What one run took: all of it, and inside its cross-attention layers.

    The layers of a compiled denoiser are part of something larger, and have no time of their own.
    """

    whole: float
    layers: float | None


class Arm(NamedTuple):
    """A way to run a denoiser.

    Attributes:
        run: Runs it, and returns the denoised latents.
        around: What has to be entered before, and is not timed: it is done once in a model's life.
    """

    run: Callable[[], Tensor]
    around: Callable[[], contextlib.AbstractContextManager[None]]


def arms(denoiser: Denoiser) -> dict[str, Arm]:
    """The stock denoiser and all that is compared with it, by name.

    `recorded` is the whole gesture, from putting the recording processors in place to the `Record`.
    """
    found = {
        "stock": Arm(denoiser.run, contextlib.nullcontext),
        "recorded": Arm(lambda: recorded(denoiser)[0], contextlib.nullcontext),
        "AttnProcessor": Arm(denoiser.run, lambda: _attn_processor(denoiser)),
    }
    if not denoiser.is_compiled:  # or every layer, with constants of its own, would be once more
        constants = partial(_constant_text_projections, denoiser)
        found["constants"] = Arm(denoiser.run, constants)
    return found


def recorded(denoiser: Denoiser) -> tuple[Tensor, Record]:
    """Run a denoiser with everything recorded that is by default."""
    with record(denoiser.pipe, prompt_lengths=[denoiser.prompt_length]) as run:
        latents = denoiser.run()
    return latents, run


def backends(denoiser: Denoiser) -> str:
    """The backends that `auto` takes for the recorded layers."""
    taken = set()
    for layer in cross_attention_layers(denoiser.unet):
        heads = layer.attention.heads
        keys = torch.empty(2, heads, TEXT_TOKENS, layer.attention.to_q.out_features // heads)
        keys = keys.to(denoiser.device, denoiser.dtype)
        able = [name for name, reason in memattn.explain(keys, keys, keys) if reason is None]
        taken.add(able[0])
    return ", ".join(sorted(taken))


def record_bytes(run: Record) -> int:
    """What the tensors of a record hold."""
    values = [getattr(run, field.name) for field in dataclasses.fields(run)]
    tensors = [value for value in values if isinstance(value, Tensor)]
    tensors += (run.token_maps or {}).values()
    return sum(tensor.nbytes for tensor in tensors)


def verify(denoiser: Denoiser) -> None:
    """Run every arm once and compare with the stock run; warms all of them up.

    Raises:
        AssertionError: If an arm denoises to something else.
    """
    expected: Tensor | None = None
    for name, arm in arms(denoiser).items():
        with arm.around():
            latents = arm.run()
        expected = latents if expected is None else expected
        check_alike(denoiser, name, latents, expected)


def check_alike(denoiser: Denoiser, name: str, latents: Tensor, expected: Tensor) -> None:
    """Refuse an arm whose latents are not those of the stock run.

    Raises:
        AssertionError: If they are not.
    """
    latents, expected = latents.float(), expected.float()
    difference = ((latents - expected).norm() / expected.norm()).item()
    allowed = _TOLERANCE[denoiser.dtype]
    if not difference <= allowed:  # nan is not
        raise AssertionError(
            f"{denoiser.label}, {name}: got latents that differ from the stock run's by "
            f"{difference:.1e} of their size, expected at most {allowed:.0e}"
        )


def timed(denoiser: Denoiser, arm: Arm) -> Seconds:
    """One run of one arm, until the device has done it."""
    clock = _no_clock if denoiser.is_compiled else _layer_clock
    with arm.around(), clock(denoiser) as in_layers:
        whole = wall_seconds(arm.run, denoiser.device)
        return Seconds(whole, in_layers())


@contextlib.contextmanager
def _no_clock(denoiser: Denoiser) -> Iterator[Callable[[], None]]:
    yield lambda: None


@contextlib.contextmanager
def _layer_clock(denoiser: Denoiser) -> Iterator[Callable[[], float]]:
    """The seconds of all calls of cross-attention layers, projections included."""
    now, between = _STOPWATCHES[denoiser.device]
    marks = []
    with contextlib.ExitStack() as hooks:
        for layer in cross_attention_layers(denoiser.unet):
            for register in ("register_forward_pre_hook", "register_forward_hook"):
                hook = getattr(layer.attention, register)(lambda *_: marks.append(now()))
                hooks.callback(hook.remove)
        yield lambda: sum(map(between, marks[::2], marks[1::2]))


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


# By the type of a device: how a moment is marked, and the seconds from one to another.
_STOPWATCHES: dict[str, tuple[Callable[[], Any], Callable[[Any, Any], float]]] = {
    "cpu": (time.perf_counter, lambda start, end: end - start),
    "cuda": (_event, lambda start, end: 1e-3 * start.elapsed_time(end)),
}


@contextlib.contextmanager
def _attn_processor(denoiser: Denoiser) -> Iterator[None]:
    """`memattn.AttnProcessor` in every layer, self-attention included: the speed upgrade."""
    before = denoiser.unet.attn_processors
    denoiser.unet.set_attn_processor(AttnProcessor())
    try:
        yield
    finally:
        denoiser.unet.set_attn_processor(before)


@contextlib.contextmanager
def _constant_text_projections(denoiser: Denoiser) -> Iterator[None]:
    """Text keys and values computed beforehand: all that keeping them over the calls could save."""
    layers = [layer.attention for layer in cross_attention_layers(denoiser.unet)]
    before = [(layer.to_k, layer.to_v) for layer in layers]
    with torch.no_grad():
        for layer in layers:
            layer.to_k = _Constant(layer.to_k(denoiser.text))
            layer.to_v = _Constant(layer.to_v(denoiser.text))
    try:
        yield
    finally:
        for layer, (to_k, to_v) in zip(layers, before, strict=True):
            layer.to_k, layer.to_v = to_k, to_v


class _Constant(nn.Module):
    """Stands in for a projection whose result is known."""

    def __init__(self, projected: Tensor) -> None:
        super().__init__()
        self._projected = projected

    def forward(self, text: Tensor) -> Tensor:
        """The projection of the one text there is [B, Lk, C]."""
        return self._projected

"""`record`: attaches to a denoiser, watches its calls, and hands out a `Record`."""

import contextlib
import copy
import dataclasses
import weakref
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from memattn.errors import RecordingError
from memattn.processors.recording import LayerRecording
from memattn.recording.arguments import plan_of
from memattn.recording.hooks import CallHooks
from memattn.recording.layout import Layout, checked_layout, layout_of, parts
from memattn.recording.locate import (
    Layer,
    cross_attention_layers,
    denoiser_of,
    recording_of,
    uncompiled,
)
from memattn.recording.noise_levels import prediction_type_of, sigmas_of
from memattn.recording.prompts import PromptListener
from memattn.recording.run import Plan, Run
from memattn.records import FIELDS, Record

_RECORDED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_CALLS_WITHOUT_SCHEDULER = 64


def record(
    denoiser_or_pipe: DiffusionPipeline | nn.Module,
    *,
    fields: Collection[str] = FIELDS,
    map_layers: Sequence[int | str] | None = None,
    token: int | Sequence[int] | Tensor | None = None,
    heads: bool = False,
    entropy_per_token: bool = False,
    layout: Layout | None = None,
    prompt_lengths: Sequence[int] | Tensor | None = None,
) -> "Recorder":
    """Record the cross-attention and the guidance gap of one run.

    Used as a context manager it yields a `Record` that is filled when the block ends. The
    pipeline's images stay what they are, up to the rounding of attention.

    Args:
        denoiser_or_pipe: A diffusers pipeline with a UNet, or such a UNet itself.
        fields: What to record, of `memattn.records.FIELDS`.
        map_layers: Layers whose token maps to keep, by name or index in forward order; by default
            the cross-attention layers of the first down block that has any.
        token: The token whose maps to keep, one for all samples or one each; by default each
            prompt's end token.
        heads: Also keep `head_token_mass` and `head_entropy`.
        entropy_per_token: Also keep `token_entropy`.
        layout: For a bare denoiser: "conditional", or "unconditional+conditional" if each batch
            holds all unconditional rows followed by all conditional ones.
        prompt_lengths: Tokens of each prompt with begin and end token, where the pipeline is
            given embeddings or there is none.

    Returns:
        A recorder, not yet attached.

    Raises:
        ValueError: If `fields` names something that cannot be recorded, or an argument is given
            that they make no use of.
        RecordingError: If the model has no cross-attention that can be recorded, or something that
            is needed is unknown.

    Example:
        >>> with memattn.record(pipe) as record:  # doctest: +SKIP
        ...     images = pipe("a photograph of a lighthouse").images
        >>> record.mean_attention()  # doctest: +SKIP
    """
    pipe, known_layout = None, None
    if isinstance(denoiser_or_pipe, DiffusionPipeline):
        pipe, denoiser = denoiser_or_pipe, denoiser_of(denoiser_or_pipe)
        if layout is not None:
            raise RecordingError(
                f"got a pipeline and layout={layout!r}; a pipeline says its layout itself."
            )
    elif isinstance(denoiser_or_pipe, nn.Module):
        denoiser, known_layout = denoiser_or_pipe, checked_layout(layout)
    else:
        raise TypeError(
            f"got a {type(denoiser_or_pipe).__name__}, expected a diffusers pipeline or a "
            "denoiser module."
        )
    layers = cross_attention_layers(denoiser)
    plan = plan_of(
        layers,
        fields=fields,
        map_layers=map_layers,
        token=token,
        heads=heads,
        entropy_per_token=entropy_per_token,
        prompt_lengths=prompt_lengths,
    )
    return Recorder(pipe, denoiser, layers, plan, known_layout)


class Recorder:
    """Watches one denoiser; made by `memattn.record`.

    For long-lived use call `attach` once, `take` after every run, and `detach` at the end. A run
    that was not taken is dropped when the pipeline begins the next one.

    Args:
        pipe: The pipeline that calls the denoiser, None if it is called by other code.
        denoiser: What the pipeline calls.
        layers: Its cross-attention layers in forward order.
        plan: What to record.
        layout: Layout of the denoiser's batch where there is no pipeline to say it.

    Raises:
        RecordingError: If the pipeline has no `encode_prompt`.
    """

    def __init__(
        self,
        pipe: DiffusionPipeline | None,
        denoiser: nn.Module,
        layers: Sequence[Layer],
        plan: Plan,
        layout: Layout | None,
    ) -> None:
        self._pipe = pipe
        self._denoiser = denoiser
        self._layers = [
            layer for layer in layers if plan.statistics or layer.name in plan.map_layers
        ]
        self._plan = plan
        self._layout = layout
        self._listener = None if pipe is None else PromptListener(pipe)
        self._attached = contextlib.ExitStack()
        self._run: Run | None = None
        self._blank: Record | None = None
        # known from a run's first call
        self._lengths: tuple[int, ...] | None = None
        self._map_tokens: tuple[int, ...] = ()
        self._scheduler: Any = None
        self._scheduled_calls: int | None = None

    def __enter__(self) -> Record:
        self.attach()
        self._blank = Record.__new__(Record)
        return self._blank

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        blank, self._blank = self._blank, None
        self.detach()
        try:
            if error_type is None and blank is not None:
                sealed = self.take()
                for field in dataclasses.fields(Record):
                    object.__setattr__(blank, field.name, getattr(sealed, field.name))
        finally:
            self._run = None

    def attach(self) -> None:
        """Put recording processors in place and begin to watch the denoiser.

        Raises:
            RecordingError: If the denoiser is being recorded already, or a layer's processor
                computes something else than plain attention.
        """
        if uncompiled(self._denoiser) in _RECORDED:
            raise RecordingError(
                "this denoiser is being recorded already: leave the other recording first."
            )
        self._run = None
        recordings = {
            layer.name: recording_of(layer, self._plan.statistics) for layer in self._layers
        }
        self._recordings: Mapping[str, LayerRecording] = recordings
        with contextlib.ExitStack() as attached:
            _RECORDED.add(uncompiled(self._denoiser))
            attached.callback(_RECORDED.discard, uncompiled(self._denoiser))
            for layer in self._layers:
                recordings[layer.name].attach(layer.attention)
                attached.callback(recordings[layer.name].detach, layer.attention)
            hooks = CallHooks(self._denoiser, self._before, self._after)
            attached.callback(hooks.remove)
            if self._listener is not None:
                self._listener.attach()
                attached.callback(self._listener.detach)
            self._attached = attached.pop_all()

    def detach(self) -> None:
        """Leave denoiser and pipeline as they were; the last run can still be taken."""
        self._attached.close()

    def take(self) -> Record:
        """The record of the run that just ended; the next run begins a new one.

        Raises:
            RecordingError: If there was no run, or it was not recorded whole.
        """
        run, self._run = self._run, None
        if run is None or run.calls == 0:
            raise RecordingError(
                "the denoiser was not called while it was recorded, expected one run; a pipeline's "
                "denoiser must not be replaced or compiled after recording began."
            )
        # in inference mode the record's tensors could not be used with autograd afterwards
        with torch.inference_mode(False):
            fields = run.finished()
            return Record(
                **fields,
                sigmas=sigmas_of(self._scheduler, fields["timesteps"]),
                prediction_type=prediction_type_of(self._scheduler),
                scheduled_calls=self._scheduled_calls,
                prompt_lengths=None if self._lengths is None else torch.tensor(self._lengths),
                map_tokens=torch.tensor(self._map_tokens) if self._plan.map_layers else None,
            )

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a run at its first call; refuse what one record cannot hold."""
        for recording in self._recordings.values():
            recording.statistics = None  # of a call that did not end
        sample = _argument(args, kwargs, 0, "sample")
        if self._run is not None and self._is_another_run():
            if self._blank is not None:
                raise RecordingError(
                    "got a second run of the pipeline in one recording, expected one: open a new "
                    "'with memattn.record(pipe)' block for each and join them with "
                    "Record.concatenate([...])."
                )
            self._run = None
        if self._run is None:
            self._begin(sample, _argument(args, kwargs, 2, "encoder_hidden_states"))
            return
        if self._pipe is not None and layout_of(self._pipe) != self._run.layout:
            to = "off" if self._run.layout == "unconditional+conditional" else "on"
            raise RecordingError(
                f"guidance was switched {to} at call {self._run.calls}, expected a run that is "
                "guided in all of its calls or in none."
            )
        if sample.shape[0] != self._run.batch:
            raise RecordingError(
                f"got a batch of {sample.shape[0]} rows after one of {self._run.batch}: samples "
                "cannot change within one recording; a run that failed is dropped by take()."
            )

    def _is_another_run(self) -> bool:
        """Whether the pipeline has set its timesteps anew since the run began."""
        return (
            self._pipe is not None
            and self._pipe.scheduler.timesteps is not self._scheduler.timesteps
        )

    def _after(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:  # noqa: ANN401
        """Collect what the call left behind."""
        assert self._run is not None
        self._run.collect(torch.as_tensor(_argument(args, kwargs, 1, "timestep")), output)

    def _begin(self, sample: Tensor, text: Tensor) -> None:
        """Learn layout, prompt lengths and schedule of the run whose first call this is."""
        batch = sample.shape[0]
        layout = self._layout
        capacity = _CALLS_WITHOUT_SCHEDULER
        lengths = self._plan.prompt_lengths
        if self._pipe is not None and self._listener is not None:
            encoded, self._listener.encoded = self._listener.encoded, None
            if encoded is None:
                raise RecordingError(
                    "the denoiser was called, but not by the pipeline being recorded, whose "
                    "encode_prompt was not called: record the pipeline that calls it, or the "
                    "denoiser itself with layout=."
                )
            layout = layout_of(self._pipe)
            if encoded.samples * parts(layout) != batch:
                raise RecordingError(
                    f"got a batch of {batch} rows for {encoded.samples} samples that encode_prompt "
                    f"was called for, expected {parts(layout)} per sample: the layout of "
                    f"{type(self._pipe).__name__} is not known; record its denoiser with layout=."
                )
            if lengths is None:
                lengths = encoded.lengths
            if lengths is not None and len(lengths) == encoded.prompts:
                lengths = tuple(n for n in lengths for _ in range(encoded.images_per_prompt))
            # A copy, whose timesteps and sigmas are not those of whatever runs next.
            self._scheduler = copy.copy(self._pipe.scheduler)
            capacity = int(getattr(self._pipe, "num_timesteps", len(self._scheduler.timesteps)))
            self._scheduled_calls = capacity
        assert layout is not None
        samples = batch // parts(layout)
        self._lengths = _checked_tokens("prompt_lengths", lengths, samples, 1, text.shape[1])
        heads = [layer.heads for layer in self._layers]
        run = Run(self._plan, self._recordings, heads, layout, batch, capacity)
        if self._plan.map_layers:
            self._choose_tokens(samples, parts(layout), text)
        self._run = run

    def _choose_tokens(self, samples: int, copies: int, text: Tensor) -> None:
        """Tell the map layers which token's map to return, for every row of the batch."""
        tokens = self._plan.token
        if tokens is None and self._lengths is not None:
            tokens = tuple(length - 1 for length in self._lengths)
        if tokens is None:
            raise RecordingError(
                "got embeddings instead of prompts, so the end tokens of the token maps are not "
                "known: pass prompt_lengths= or token=, or leave token_maps out of fields."
            )
        if len(tokens) == 1:
            tokens = tokens * samples
        chosen = _checked_tokens("token", tokens, samples, 0, text.shape[1] - 1)
        assert chosen is not None
        self._map_tokens = chosen
        # a tensor born in inference mode could not be written to by a later run outside of it
        with torch.inference_mode(False):
            of_rows = torch.tensor(chosen * copies, device=text.device)
            for layer in self._plan.map_layers:
                held = self._recordings[layer].token
                if held is None or held.shape != of_rows.shape or held.device != of_rows.device:
                    self._recordings[layer].token = of_rows.clone()
                else:
                    held.copy_(of_rows)


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, name: str) -> Any:  # noqa: ANN401
    """One argument of a denoiser call, given by position or by name."""
    return args[index] if index < len(args) else kwargs[name]


def _checked_tokens(
    name: str, values: tuple[int, ...] | None, samples: int, low: int, high: int
) -> tuple[int, ...] | None:
    """`values` if they are one per sample and within the text."""
    if values is None:
        return None
    if len(values) != samples or min(values) < low or max(values) > high:
        raise RecordingError(
            f"got {name} {list(values)}, expected {samples} numbers from {low} to {high}."
        )
    return values

"""`record`: attaches to a denoiser, watches its calls, and hands out a `Record`."""

import dataclasses
import weakref
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from memattn.errors import RecordingError
from memattn.recording.hooks import CallHooks
from memattn.recording.layout import Layout, checked_layout, layout_of, parts
from memattn.recording.locate import (
    Layer,
    cross_attention_layers,
    denoiser_of,
    first_level,
    recording_processor,
    uncompiled,
)
from memattn.recording.noise_levels import prediction_type_of, sigmas_of
from memattn.recording.prompts import PromptListener
from memattn.recording.run import Plan, Processors, Run
from memattn.records import FIELDS, Record

_RECORDED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_CALLS_WITHOUT_SCHEDULER = 64
_OF_EVERY_LAYER = {"token_mass", "entropy", "token_entropy", "head_token_mass", "head_entropy"}


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
        ValueError: If `fields` names something that cannot be recorded.
        RecordingError: If the model has no cross-attention that can be recorded, or something that
            is needed is unknown.

    Example:
        >>> with memattn.record(pipe) as record:  # doctest: +SKIP
        ...     images = pipe("a photograph of a lighthouse").images
        >>> record.mean_attention()  # doctest: +SKIP
    """
    return Recorder(
        denoiser_or_pipe,
        fields=fields,
        map_layers=map_layers,
        token=token,
        heads=heads,
        entropy_per_token=entropy_per_token,
        layout=layout,
        prompt_lengths=prompt_lengths,
    )


class Recorder:
    """Watches one denoiser; made by `memattn.record`.

    For long-lived use call `attach` once, `take` after every run, and `detach` at the end.
    """

    def __init__(
        self,
        denoiser_or_pipe: DiffusionPipeline | nn.Module,
        *,
        fields: Collection[str],
        map_layers: Sequence[int | str] | None,
        token: int | Sequence[int] | Tensor | None,
        heads: bool,
        entropy_per_token: bool,
        layout: Layout | None,
        prompt_lengths: Sequence[int] | Tensor | None,
    ) -> None:
        unknown = sorted(set(fields) - set(FIELDS)) if not isinstance(fields, str) else [fields]
        if unknown:
            raise ValueError(f"got fields {unknown}, expected some of {list(FIELDS)}.")
        if isinstance(denoiser_or_pipe, DiffusionPipeline):
            self._pipe: DiffusionPipeline | None = denoiser_or_pipe
            self._denoiser = denoiser_of(denoiser_or_pipe)
            if layout is not None:
                raise RecordingError(
                    f"got a pipeline and layout={layout!r}; a pipeline says its layout itself."
                )
            self._layout: Layout | None = None
        elif isinstance(denoiser_or_pipe, nn.Module):
            self._pipe = None
            self._denoiser = denoiser_or_pipe
            self._layout = checked_layout(layout)
        else:
            raise TypeError(
                f"got a {type(denoiser_or_pipe).__name__}, expected a diffusers pipeline or a "
                "denoiser module."
            )
        wanted = set(fields)
        wanted |= {"head_token_mass", "head_entropy"} if heads else set()
        wanted |= {"token_entropy"} if entropy_per_token else set()
        if not wanted:
            raise ValueError(f"got no fields to record, expected some of {list(FIELDS)}.")
        layers = cross_attention_layers(self._denoiser)
        maps = _map_layers(layers, map_layers) if "token_maps" in wanted else ()
        self._plan = Plan(frozenset(wanted), maps)
        self._layers = tuple(
            layer for layer in layers if wanted & _OF_EVERY_LAYER or layer.name in maps
        )
        self._token = _integers("token", token)
        self._prompt_lengths = _integers("prompt_lengths", prompt_lengths)
        self._listener = None if self._pipe is None else PromptListener(self._pipe)
        self._attached = False
        self._run: Run | None = None
        self._blank: Record | None = None
        # known from a run's first call
        self._lengths: tuple[int, ...] | None = None
        self._map_tokens: tuple[int, ...] = ()
        self._schedule: Tensor | None = None
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
        self._unhook()
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
        processors = {layer.name: recording_processor(layer) for layer in self._layers}
        self._originals = {layer: layer.attention.processor for layer in self._layers}
        self._processors: Processors = processors
        _RECORDED.add(uncompiled(self._denoiser))
        self._attached = True
        for layer in self._layers:
            layer.attention.set_processor(processors[layer.name])
        self._hooks = CallHooks(self._denoiser, self._before, self._after)
        if self._listener is not None:
            self._listener.attach()

    def detach(self) -> None:
        """Put the original processors back and stop watching; what was not taken is dropped."""
        self._unhook()
        self._run = None

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
            scheduler = None if self._pipe is None else self._pipe.scheduler
            return Record(
                **fields,
                sigmas=sigmas_of(scheduler, fields["timesteps"]),
                prediction_type=prediction_type_of(scheduler),
                scheduled_calls=self._scheduled_calls,
                prompt_lengths=None if self._lengths is None else torch.tensor(self._lengths),
                map_tokens=torch.tensor(self._map_tokens) if self._plan.map_layers else None,
            )

    def _unhook(self) -> None:
        """Leave denoiser and pipeline as they were."""
        if not self._attached:
            return
        self._attached = False
        _RECORDED.discard(uncompiled(self._denoiser))
        self._hooks.remove()
        if self._listener is not None:
            self._listener.detach()
        for layer, original in self._originals.items():
            # a processor that somebody else has put there meanwhile is theirs
            if layer.attention.processor is self._processors[layer.name]:
                layer.attention.set_processor(original)

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin a run at its first call; refuse a second run."""
        sample = _argument(args, kwargs, 0, "sample")
        if self._run is None:
            self._begin(sample, _argument(args, kwargs, 2, "encoder_hidden_states"))
        elif self._pipe is not None and self._pipe.scheduler.timesteps is not self._schedule:
            raise RecordingError(
                "got a second run of the pipeline in one recording, expected one: open a new "
                "'with memattn.record(pipe)' block for each and join them with "
                "Record.concatenate([...])."
            )
        elif sample.shape[0] != self._run.batch:
            raise RecordingError(
                f"got a batch of {sample.shape[0]} rows after one of {self._run.batch}: samples "
                "cannot change within one recording."
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
        lengths = self._prompt_lengths
        if self._pipe is not None and self._listener is not None:
            layout = layout_of(self._pipe)
            encoded, self._listener.encoded = self._listener.encoded, None
            if encoded is None or encoded.samples * parts(layout) != batch:
                said = "none" if encoded is None else f"{encoded.samples}"
                raise RecordingError(
                    f"got a batch of {batch} rows for {said} samples that encode_prompt was "
                    f"called for, expected {parts(layout)} per sample: the layout of "
                    f"{type(self._pipe).__name__} is not known; record its denoiser with layout=."
                )
            if lengths is None:
                lengths = encoded.lengths
            if lengths is not None and len(lengths) == encoded.prompts:
                lengths = tuple(n for n in lengths for _ in range(encoded.images_per_prompt))
            schedule: Tensor = self._pipe.scheduler.timesteps
            capacity = int(getattr(self._pipe, "num_timesteps", len(schedule)))
            self._schedule, self._scheduled_calls = schedule, capacity
        assert layout is not None
        samples = batch // parts(layout)
        self._lengths = _checked_tokens("prompt_lengths", lengths, samples, 1, text.shape[1])
        heads = [layer.heads for layer in self._layers]
        run = Run(self._plan, self._processors, heads, layout, batch, capacity)
        if self._plan.map_layers:
            self._choose_tokens(samples, parts(layout), text)
        self._run = run

    def _choose_tokens(self, samples: int, copies: int, text: Tensor) -> None:
        """Tell the map layers which token's map to return, for every row of the batch."""
        tokens = self._token
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
        of_rows = torch.tensor(chosen * copies, device=text.device)
        for layer in self._plan.map_layers:
            held = self._processors[layer].token
            if held is not None and held.shape == of_rows.shape and held.device == of_rows.device:
                held.copy_(of_rows)
            else:
                self._processors[layer].token = of_rows.clone()


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], index: int, name: str) -> Any:  # noqa: ANN401
    """One argument of a denoiser call, given by position or by name."""
    return args[index] if index < len(args) else kwargs[name]


def _map_layers(layers: Sequence[Layer], wanted: Sequence[int | str] | None) -> tuple[str, ...]:
    """Names of the layers whose maps to keep."""
    names = [layer.name for layer in layers]
    if wanted is None:
        return first_level(tuple(layers))
    chosen = []
    for layer in wanted:
        if isinstance(layer, int) and -len(names) <= layer < len(names):
            chosen.append(names[layer])
        elif layer in names:
            chosen.append(str(layer))
        else:
            raise RecordingError(
                f"got map layer {layer!r}, expected an index below {len(names)} or one of "
                f"{', '.join(names)}."
            )
    return tuple(chosen)


def _integers(name: str, values: int | Sequence[int] | Tensor | None) -> tuple[int, ...] | None:
    """Token positions or counts as integers."""
    if values is None:
        return None
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.ndim > 1:
        raise ValueError(f"got {name}={values!r}, expected one integer per sample.")
    return tuple(int(value) for value in tensor.flatten().tolist())


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

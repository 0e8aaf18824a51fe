"""Whole runs of many prompts, batch by batch, so that a killed evaluation goes on where it was."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import memattn
from memattn.detectors import Detector
from memattn.detectors.base import Localiser
from memattn.errors import RecordError
from memattn.evaluation.cases import Case
from memattn.evaluation.sampling import sample
from memattn.evaluation.scoring import needed_fields, score_readable, unreadable
from memattn.evaluation.settings import Pipeline, RunSettings
from memattn.evaluation.store import Batch, Store
from memattn.evaluation.traces import FIELDS as TRACED
from memattn.evaluation.traces import Traces, trace
from memattn.evaluation.weights import autoencoder_hash, model_hash
from memattn.records import Field, Record

# Whole images, though the bar moves with every denoiser call: a batch can take minutes.
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} [{elapsed}<{remaining}]"


@dataclass(frozen=True, eq=False)
class Runs:
    """What whole runs of some cases left behind.

    Attributes:
        cases: The cases, in the order of all that follows.
        scores: Detector name to scores [n], float32.
        masks: Name of each detector that also localises to masks [n, h, w], float32.
        images: Generated images [height, width, 3]; empty if none were wanted.
        traces: What the detectors read, call by call; None if it was not wanted, or the model
            lacks what it needs.
        calls: Denoiser calls of one run.
        unreadable: Name of each detector that cannot read this model to the reason, in one
            sentence; it has no scores and no masks.
        attention: Attention each token received, mean over heads, layers and calls [n, Lk]; None
            where images were not wanted.
        kept: How many of the cases a store held already.
    """

    cases: tuple[Case, ...]
    scores: dict[str, Tensor]
    masks: dict[str, Tensor]
    images: tuple[NDArray[np.uint8], ...]
    traces: Traces | None
    calls: int
    unreadable: dict[str, str]
    attention: Tensor | None = None
    kept: int = 0


def run_cases(
    pipe: Pipeline,
    cases: Sequence[Case],
    detectors: Sequence[Detector],
    settings: RunSettings,
    *,
    batch_size: int,
    store: Path | None,
    label: str,
    images: bool = True,
    model: str | None = None,
) -> Runs:
    """Generate one image per case, and score every run with every detector that can read it.

    A progress bar on stderr counts images, with the time left. With a store, a call that was
    killed loses one batch: the same call goes on after the batches kept there and, on the same
    machine, gives bit for bit what it would have given in one go. A detector that cannot read the
    model is left out, and named on stderr after the first batch.

    Args:
        pipe: A Stable Diffusion pipeline.
        cases: The cases, at least one.
        detectors: Detectors, of which at least one must be able to read the model.
        settings: How to generate.
        batch_size: Images per pipeline call.
        store: Folder that keeps every finished batch in a file of its own, or None.
        label: What the bar is called.
        images: Make images and traces; without them only scores and masks are kept.
        model: `model_hash` of the pipeline where it is known; a store needs it.

    Returns:
        What the runs left behind, in the order of the cases.

    Raises:
        InputError: If the store holds other work, or a damaged file.
        RecordError: If no detector can read the model.
        ValueError: If there are no cases, or no room in a batch.
    """
    if not cases:
        raise ValueError("got no cases, expected at least one")
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, expected at least 1")
    settings = settings.resolve(pipe)
    kept = (
        None
        if store is None
        else Store(
            store, identity(pipe, cases, detectors, settings, batch_size, model, images=images)
        )
    )
    parts = [cases[start : start + batch_size] for start in range(0, len(cases), batch_size)]
    found = {
        index: batch
        for index, part in enumerate(parts)
        if kept is not None and (batch := kept.read(index, len(part))) is not None
    }
    kept_cases = done = sum(len(parts[index]) for index in found)
    said: set[str] = set()
    with tqdm(desc=label, total=len(cases), initial=done, bar_format=_BAR, mininterval=0.5) as bar:
        if done:
            tqdm.write(f"{label}: {done} of {len(cases)} were there already", file=sys.stderr)
        for index, part in enumerate(parts):
            if index not in found:
                found[index] = _run_batch(pipe, part, detectors, settings, bar, images=images)
                done += len(part)
                bar.n = done  # shares of a batch do not add up to whole numbers
                bar.refresh()
                if kept is not None:
                    kept.write(index, found[index])
            for detector, reason in found[index].unreadable.items():
                if detector not in said:
                    tqdm.write(unreadable(detector, reason), file=sys.stderr)
                    said.add(detector)
    joined = _join(tuple(cases), [found[index] for index in range(len(parts))])
    return replace(joined, kept=kept_cases)


def _run_batch(
    pipe: Pipeline,
    cases: Sequence[Case],
    detectors: Sequence[Detector],
    settings: RunSettings,
    bar: "tqdm[Any]",
    *,
    images: bool,
) -> Batch:
    """Generate and score one batch."""

    def advance(calls: int) -> None:
        bar.update(len(cases) / calls)

    # With or without images the same: recorded layers round otherwise than plain ones.
    fields: set[Field] = {*needed_fields(detectors), *TRACED}
    samples = sample(
        pipe,
        [case.prompt for case in cases],
        seeds=[case.seed for case in cases],
        settings=settings,
        fields=sorted(fields),
        images=images,
        on_call=advance,
    )
    scores, reasons = score_readable(samples.record, detectors)
    return Batch(
        scores=scores,
        unreadable=reasons,
        masks={
            detector.name: detector.mask(samples.record).cpu()
            for detector in detectors
            if isinstance(detector, Localiser) and detector.name in scores
        },
        images=None if samples.images is None else torch.from_numpy(samples.images),
        traces=_trace(samples.record) if images else None,
        attention=samples.record.mean_attention().mean(dim=0).cpu() if images else None,
        calls=samples.record.calls,
    )


def _trace(record: Record) -> Traces | None:
    """The record's traces, if it has what they need."""
    try:
        return trace(record)
    except RecordError:
        return None


def _join(cases: tuple[Case, ...], batches: Sequence[Batch]) -> Runs:
    """All batches as one; a detector that failed in one of them is left out."""
    reasons: dict[str, str] = {}
    for batch in batches:
        for name, reason in batch.unreadable.items():
            reasons.setdefault(name, reason)
    names = [name for name in batches[0].scores if name not in reasons]
    if not names:
        name, reason = next(iter(reasons.items()))
        raise RecordError(f"no detector can read this model; {name}: {reason}")
    traces = [batch.traces for batch in batches if batch.traces is not None]
    images = [batch.images for batch in batches if batch.images is not None]
    attention = [batch.attention for batch in batches if batch.attention is not None]
    return Runs(
        cases=cases,
        scores={name: torch.cat([batch.scores[name] for batch in batches]) for name in names},
        masks={
            name: torch.cat([batch.masks[name] for batch in batches])
            for name in names
            if name in batches[0].masks
        },
        images=tuple(image for batch in images for image in batch.numpy()),
        traces=Traces.concatenate(traces) if len(traces) == len(batches) else None,
        calls=batches[0].calls,
        unreadable=reasons,
        attention=torch.cat(attention) if attention else None,
    )


def identity(
    pipe: Pipeline,
    cases: Sequence[Case],
    detectors: Sequence[Detector],
    settings: RunSettings,
    batch_size: int,
    model: str | None,
    *,
    images: bool,
) -> dict[str, str]:
    """What decides the content of every batch, by the name that a user knows it by.

    Args:
        pipe: As in `run_cases`, like all that follows.
        cases: The cases.
        detectors: The detectors.
        settings: How to generate, resolved.
        batch_size: Images per pipeline call.
        model: `model_hash` of the pipeline where it is known.
        images: Whether images are made.

    Returns:
        Name to value.
    """
    prompts = json.dumps([(case.prompt, case.seed) for case in cases])
    return {
        "model": model or model_hash(pipe),
        "device": pipe.device.type,
        "settings": repr(settings),
        "prompts or seeds": hashlib.sha256(prompts.encode()).hexdigest(),
        "detectors": ", ".join(detector.name for detector in detectors),
        "batch size": str(batch_size),
        "images or autoencoder": autoencoder_hash(pipe) if images else "no images",
        "version of memattn": memattn.__version__,
    }

"""The optimisation loop that all three stages share: exact to resume, safe to interrupt."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from memattn.whole import whole_file

_CHECKPOINT_EVERY = 250
_GRADIENT_CLIP = 1.0
_FINAL_RATE = 0.02  # of the peak, where the cosine ends


@dataclass(frozen=True)
class Stage:
    """What to train, and how far.

    Attributes:
        name: Name of the stage; its checkpoint is `<name>.pt`.
        module: Module whose parameters are trained.
        loss: Loss of one part of one step's batch; the parts' losses add up to the step's. It
            draws its random numbers from the step alone, so that a resumed run sees exactly what
            an uninterrupted one would.
        steps: Optimizer steps.
        rate: Peak learning rate; linear warm-up over 500 steps at most, cosine to 2 %.
        parts: Parts of a batch, each with a thread of its own. Two threads with half a batch each
            share two cores better than one operator after the other does, and the sum of two
            gradients does not depend on which was first.
        ema_decay: Decay of the averaged weights, None to go without.
    """

    name: str
    module: nn.Module
    loss: Callable[[int, int], Tensor]
    steps: int
    rate: float
    parts: Literal[1, 2] = 1
    ema_decay: float | None = None


def run(stage: Stage, folder: Path) -> None:
    """Trains the stage to its end, from its checkpoint if there is one.

    The module is left with its final weights, the averaged ones where the stage averages.
    """
    parameters = [p for p in stage.module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=stage.rate, weight_decay=0.0, fused=True)
    ema = EMAModel(parameters, decay=stage.ema_decay, foreach=True) if stage.ema_decay else None
    checkpoint = folder / f"{stage.name}.pt"
    first = _restore(checkpoint, stage.module, optimizer, ema)
    stage.module.train()
    bar = tqdm(range(first, stage.steps), desc=stage.name, initial=first, total=stage.steps)
    with _threads(stage.parts) as pool:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = stage.rate * _schedule(step, stage.steps)
            loss = sum(pool.map(partial(_backward, stage, step), range(stage.parts)))
            nn.utils.clip_grad_norm_(parameters, _GRADIENT_CLIP)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if ema:
                ema.step(parameters)
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss:.4f}")
            if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == stage.steps:
                _save(checkpoint, step + 1, stage.module, optimizer, ema)
    if ema:
        ema.copy_to(parameters)
    stage.module.eval().requires_grad_(False)


@contextmanager
def _threads(parts: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that share the cores between them; torch's setting, which is global, is put back."""
    before = torch.get_num_threads()
    share = (max(1, before // parts),)
    # The optimizer works on hundreds of small tensors, for each of which a second thread is woken
    # at more than it saves: on a loaded machine that took two fifths of a step.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=share) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)


def _backward(stage: Stage, step: int, part: int) -> float:
    """Adds one part's gradients to the parameters'."""
    loss = stage.loss(step, part)
    loss.backward()
    return loss.item()


def _schedule(step: int, steps: int) -> float:
    warmup = min(500, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return _FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress))


def _save(
    path: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel | None
) -> None:
    state = {"step": step, "module": module.state_dict(), "optimizer": optimizer.state_dict()}
    if ema:
        state["ema"] = ema.state_dict()
    with whole_file(path) as fresh:
        torch.save(state, fresh)


def _restore(
    path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel | None
) -> int:
    """Loads the checkpoint if there is one; gives the step to go on with."""
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    if ema:
        ema.load_state_dict(state["ema"])
        ema.to(device=next(module.parameters()).device)
    return int(state["step"])


def generator(seed: int, stage: int, step: int) -> torch.Generator:
    """A CPU generator that depends on the step alone."""
    return torch.Generator().manual_seed(seed * 1_000_003 + stage * 100_000_007 + step)

"""Loads the pipeline that a command was pointed at."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from memattn.cli.options import TESTBED
from memattn.errors import InputError

if TYPE_CHECKING:
    from memattn.evaluation.settings import Pipeline


def load_pipeline(model: str, *, device: str | None, dtype: str) -> "Pipeline":
    """Load the testbed, or a checkpoint folder, without any network.

    Args:
        model: "testbed", the folder of a trained testbed, or one in diffusers' layout.
        device: A torch device; None for a CUDA device if there is one, else the CPU.
        dtype: Name of a torch dtype.

    Returns:
        The pipeline on its device.

    Raises:
        InputError: If the folder is no Stable Diffusion pipeline or the device cannot be used.
    """
    target = torch_device(device)
    weights = getattr(torch, dtype)
    with quiet_libraries():
        data = testbed_folder(model)
        if data is not None:
            from memattn import testbed

            return testbed.load_pipeline(data).to(target, weights)
        from memattn.recording.checkpoint import open_checkpoint

        return open_checkpoint(Path(model), weights).to(target)


def testbed_folder(model: str) -> Path | None:
    """The folder of the testbed that a model's name stands for.

    Args:
        model: "testbed" or a folder.

    Returns:
        The packaged testbed's folder, the folder itself if it holds a trained testbed, else None.
    """
    with quiet_libraries():
        from memattn.testbed.manifest import DATA, MANIFEST

    if model == TESTBED:
        return DATA
    return Path(model) if (Path(model) / MANIFEST).is_file() else None


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep back what libraries say while they are imported and load a model; errors come through.

    Their warnings are of parts that memattn does not use: what it needs, it checks itself.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        from memattn.testbed.loading_bars import no_loading_bars  # imports both libraries

        with no_loading_bars():
            yield
    finally:
        logging.disable(before)


def torch_device(name: str | None) -> torch.device:
    """The device asked for, or the default."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # torch says AssertionError where it was built without CUDA.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        lines = str(error).strip().splitlines()
        raise InputError(f"cannot use the device {name}: {lines[0].rstrip('.')}.") from error
    return device

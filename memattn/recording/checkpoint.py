"""Opens a checkpoint folder as a pipeline that can be recorded."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline

from memattn.errors import InputError

_INDEX = "model_index.json"
_NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def open_checkpoint(folder: Path, dtype: torch.dtype) -> DiffusionPipeline:
    """Load a Stable Diffusion pipeline from a folder, without any network.

    Args:
        folder: A folder in diffusers' layout, with `model_index.json`.
        dtype: Type of the weights.

    Returns:
        The pipeline on the CPU.

    Raises:
        InputError: If the folder is missing, no diffusers pipeline, damaged, or a pipeline of
            another kind.
    """
    if not folder.is_dir():
        raise InputError(f"got the model {folder}, expected a folder in diffusers' layout.")
    if not (folder / _INDEX).is_file():
        raise InputError(
            f"got the model folder {folder} without {_INDEX}, expected a diffusers pipeline."
        )
    try:
        pipe = DiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=dtype)
    # What a damaged checkpoint raises depends on which of its many files is damaged.
    except Exception as error:
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise InputError(f"cannot load {folder} as a diffusers pipeline: {reason}") from error
    missing = [name for name in _NEEDED if getattr(pipe, name, None) is None]
    if missing:
        raise InputError(
            f"got a {type(pipe).__name__} without {', '.join(missing)} in {folder}, expected a "
            "Stable Diffusion text-to-image pipeline."
        )
    return pipe

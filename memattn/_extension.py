"""Where the compiled libraries lie, and loading one."""

from pathlib import Path

import torch

_NEEDS = {
    "cpu": "torch and a compiler for C++20",
    "cuda": "torch with CUDA, a compiler for C++20 and nvcc",
}


def path(name: str) -> Path:
    """Where an installation keeps library `name`, if it has it."""
    return Path(__file__).with_name(f"_{name}.abi3.so")


def load(name: str) -> None:
    """Load library `name`, once however often it is asked for; torch then knows its ops.

    Raises:
        ImportError: If it was not compiled, or the system's loader refuses it.
    """
    library = path(name)
    if not library.exists():
        raise ImportError(
            f"this installation has no compiled {name} library: run `pip install "
            f"--no-build-isolation .` where {_NEEDS[name]} are"
        )
    try:
        torch.ops.load_library(library)
    except OSError as error:
        raise ImportError(str(error.__cause__ or error)) from error

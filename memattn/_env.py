"""Every environment variable of memattn's own, each read once, at import.

MEMATTN_BACKEND   the backend that `backend="auto"` stands for: auto, cuda, triton, cpu, reference.

The compiled cpu kernels read torch's ATEN_CPU_CAPABILITY as well.
"""

import os

BACKEND = os.environ.get("MEMATTN_BACKEND", "auto")


def without(*names: str) -> dict[str, str]:
    """The environment for a child process that these variables are not meant for."""
    return {name: text for name, text in os.environ.items() if name not in names}

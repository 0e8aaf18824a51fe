"""Every environment variable memattn reads at run time, each read once, at import.

MEMATTN_BACKEND   the backend that `backend="auto"` stands for: auto, cuda, triton, cpu, reference.
"""

import os

BACKEND = os.environ.get("MEMATTN_BACKEND", "auto")


def without(*names: str) -> dict[str, str]:
    """The environment for a child process that these variables are not meant for."""
    return {name: text for name, text in os.environ.items() if name not in names}

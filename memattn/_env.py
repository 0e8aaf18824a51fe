"""Every environment variable memattn reads at run time, each read once, at import.

MEMATTN_BACKEND   the backend that `backend="auto"` stands for: auto, cuda, triton, cpu, reference.
"""

import os

BACKEND = os.environ.get("MEMATTN_BACKEND", "auto")

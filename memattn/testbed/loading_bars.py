"""Keeps back the bars that diffusers and transformers draw over each other while they load."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """Without the two libraries' own progress bars; those that were on are on again afterwards."""
    with ExitStack() as stack:
        for library in (diffusers_logging, transformers_logging):
            if library.is_progress_bar_enabled():
                library.disable_progress_bar()
                stack.callback(library.enable_progress_bar)
        yield

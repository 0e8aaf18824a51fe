"""A pytest plugin that shows a progress bar, for `memattn bench`."""

import sys
from itertools import groupby

import pytest
from tqdm import tqdm

TOGETHER = ("case", "subject")  # by the parameters of the suites
_BAR: pytest.StashKey["tqdm[None]"] = pytest.StashKey()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the bar once it is known how many cases there are."""
    cases = len(list(groupby(session.items, _case)))
    session.config.stash[_BAR] = tqdm(total=cases, desc="bench", unit="case", file=sys.stderr)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Move the bar after the last benchmark of a case."""
    if _case(item) != _case(nextitem):
        item.config.stash[_BAR].update()


def _case(item: pytest.Item | None) -> object:
    """What is timed at once, with the first benchmark of it: a case, or a denoiser."""
    parameters = item.callspec.params if isinstance(item, pytest.Function) else {}
    return next((parameters[name] for name in TOGETHER if name in parameters), None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the bar."""
    if _BAR in config.stash:
        config.stash[_BAR].close()

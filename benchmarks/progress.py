"""A pytest plugin that shows a progress bar, for `memattn bench`."""

import sys

import pytest
from tqdm import tqdm

_BAR: pytest.StashKey["tqdm[None]"] = pytest.StashKey()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the bar once it is known how many benchmarks there are."""
    session.config.stash[_BAR] = tqdm(
        total=len(session.items), desc="bench", unit="benchmark", file=sys.stderr
    )


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Move the bar."""
    item.config.stash[_BAR].update()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the bar."""
    if _BAR in config.stash:
        config.stash[_BAR].close()

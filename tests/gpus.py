"""Tests that want a GPU."""

import pytest
import torch

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device here"
)


def too_few_on_cuda(passed, least):
    """A sentence if fewer tests than that passed on the cuda backend, by their ids; or None.

    A test that its conftest skips is no test: a refusal too many would go unnoticed.
    """
    count = sum("[cuda-cuda" in name for name in passed)
    if count >= least:
        return None
    return f"got {count} tests that passed on the cuda backend, expected {least} or more."


def on_gpu(test):
    """Marks a test as one that `make gpu-tests` runs."""
    return pytest.mark.gpu(needs_gpu(test))

"""Tests that want a GPU."""

import pytest
import torch

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch finds no CUDA device here"
)


def on_gpu(test):
    """Marks a test as one that `make gpu-tests` runs."""
    return pytest.mark.gpu(needs_gpu(test))

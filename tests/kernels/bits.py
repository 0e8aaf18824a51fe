"""The same call with other numbers of threads, and results that are the same bit for bit."""

import torch

THREADS = (1, 2, 3, 5)


def with_threads(count, function):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return function()
    finally:
        torch.set_num_threads(before)


def assert_same_bits(ones, others):
    for one, other in zip(ones, others, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.equal(one, other)

"""The program that compute-sanitizer watches on a GPU, on the kernels found here."""

import pytest
import torch

from tests.kernels import sanitized


def test_memory_is_poisoned_inside_and_not_outside():
    with sanitized.poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty(2, 4).transpose(0, 1).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("shape", sanitized.SHAPES[:3], ids=str)
def test_every_element_of_every_result_is_written(compiled_backend, device, shape):
    looked_at = 0
    for result in sanitized.calls(device, compiled_backend, [torch.float32], [shape]):
        assert not any(tensor.isnan().any() for tensor in result)
        looked_at += len(result)
    assert looked_at >= 14  # output, two sums and three gradients, and more with all that is asked


def test_what_was_not_written_ends_the_program(monkeypatch):
    monkeypatch.setattr(
        sanitized, "calls", lambda *_: iter([[torch.ones(2)], [torch.tensor([torch.nan])]])
    )
    with pytest.raises(AssertionError, match="something was not written"):
        sanitized.main("cpu")

"""The program that compute-sanitizer watches on a GPU, on the kernels found here."""

import itertools

import pytest
import torch

from memattn.kernels.cuda import limits
from tests.kernels import sanitized
from tests.kernels.cross_attention import dtype_of, inputs


def test_memory_is_poisoned_inside_and_not_outside():
    with sanitized.poisoned():
        assert torch.empty(3).isnan().all()
        assert torch.empty(2, 4).transpose(0, 1).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("shape", sanitized.SHAPES[:3], ids=str)
def test_every_element_of_every_result_is_written(compiled_backend, device, shape):
    if compiled_backend == "cuda" and shape[4] not in limits.DIMS:
        pytest.skip("cuda has no kernels for this head dimension")
    looked_at = 0
    dtypes = [dtype_of(compiled_backend)]
    for result in sanitized.calls(device, compiled_backend, dtypes, [shape]):
        assert not any(tensor.isnan().any() for tensor in result)
        looked_at += len(result)
    assert looked_at >= 15  # output, two sums and three gradients, and more with all that is asked


def test_cuda_meets_every_dimension_with_every_class_of_keys_and_both_dtypes():
    met = {(keys, dim) for (_, _, _, keys, dim), _ in sanitized.SHORT}
    assert met == set(itertools.product(sanitized.KEYS, limits.DIMS))
    classes = [sum(keys > bound for bound in limits._SHORT_KEYS) for keys in sanitized.KEYS]
    assert classes == list(range(len(limits._SHORT_KEYS) + 1))
    for place in (3, 4):
        kinds = {(shape[place], dtype) for shape, dtype in sanitized.SHORT}
        assert len(kinds) == 2 * len({size for size, _ in kinds})


def test_short_calls_are_with_sums_and_without(compiled_backend, device):
    results = list(sanitized.short_calls(device, compiled_backend))
    assert {len(result) for result in results} == {1, 4}  # the output; sums and a map beside it
    assert not any(tensor.isnan().any() for result in results for tensor in result)


def test_what_the_kernels_read_was_copied_as_it_lies_in_memory():
    (query, *_), bias = inputs((2, 3, 5, 7, 8)), torch.zeros(2, 7)
    ((copy,), arguments) = sanitized.copied((query,), "meta"), sanitized.copied({"b": bias}, "meta")
    assert copy.is_meta
    assert copy.stride() == query.stride()
    assert arguments["b"].is_meta


def test_what_was_not_written_ends_the_program(monkeypatch):
    monkeypatch.setattr(
        sanitized, "calls", lambda *_: iter([[torch.ones(2)], [torch.tensor([torch.nan])]])
    )
    with pytest.raises(AssertionError, match="something was not written"):
        sanitized.main("cpu")

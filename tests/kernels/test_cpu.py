"""What the cpu backend takes, and the sentence for what it does not."""

import pytest
import torch

import memattn
from memattn.errors import UnsupportedBackendError
from tests.compilers import needs_cpu_library

pytestmark = needs_cpu_library


def reason(dim=8, **kind):
    query = torch.zeros(1, 1, 2, dim, **kind)
    return dict(memattn.explain(query, query, query))["cpu"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"device": "meta"}, "it takes tensors on the cpu, got meta"),
        (
            {"dtype": torch.float64},
            "it takes torch.float32, torch.bfloat16 and torch.float16, got torch.float64",
        ),
        ({"dim": 12}, "it takes head dimensions that are multiples of 8 up to 256, got 12"),
        ({"dim": 264}, "it takes head dimensions that are multiples of 8 up to 256, got 264"),
    ],
)
def test_what_it_cannot_run_is_a_sentence(arguments, sentence):
    assert reason(**arguments) == sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dim", [8, 40, 256])
def test_the_rest_it_can(dim, dtype):
    assert reason(dim, dtype=dtype) is None


@pytest.mark.parametrize(
    ("dim", "dtype", "sentence"),
    [
        (8, torch.float64, "it takes torch.float32, torch.bfloat16 and torch.float16, got .*64"),
        (12, torch.float32, "it takes head dimensions that are multiples of 8 up to 256, got 12"),
    ],
)
def test_column_statistics_are_refused_in_the_same_words(dim, dtype, sentence):
    query = torch.zeros(1, 1, 2, dim, dtype=dtype)
    with pytest.raises(UnsupportedBackendError, match=f"'cpu' cannot run this call: {sentence}$"):
        memattn.column_statistics(query, query, backend="cpu")
    assert memattn.column_statistics(query, query).token_mass.dtype in (dtype, torch.float32)

"""No provider is timed before its result was compared with the truth."""

import warnings
from functools import partial
from typing import NamedTuple

from torch import Tensor

from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.providers import Provider
from memattn.testing import assert_within_error_budget, explicit_cross_attention
from memattn.types import CrossAttentionResult


class Unavailable(Exception):
    """Torch has no such kernel for a case; the message is torch's."""


class Truth(NamedTuple):
    """A case computed in float64, and by eager torch in the case's dtype and in float32."""

    exact: CrossAttentionResult
    eager: CrossAttentionResult
    eager_float32: CrossAttentionResult


def truth(case: Case) -> Truth:
    """Compute what every provider's result is compared with."""
    tensors = inputs(case)
    exact = explicit_cross_attention(*(tensor.double() for tensor in tensors))
    eager = explicit_cross_attention(*tensors)
    return Truth(exact, eager, explicit_cross_attention(*(tensor.float() for tensor in tensors)))


def verify(provider: Provider, tensors: tuple[Tensor, Tensor, Tensor], expected: Truth) -> None:
    """Run a provider once and compare with the truth, by the error budget of the tests.

    memattn's statistics are held to the budget of a float32 run; who sums a softmax kept in the
    input's dtype is held to that dtype's.

    Args:
        provider: Who is to be timed.
        tensors: Query, key and value.
        expected: The case's truth.

    Raises:
        Unavailable: If torch has no such kernel for these tensors.
        AssertionError: If a result is wrong.
    """
    try:
        # torch explains in warnings why it has no such kernel, before it says so in an error
        with warnings.catch_warnings(action="ignore", category=UserWarning), provider.chosen():
            result = provider.call(*tensors)
    except RuntimeError as error:
        # torch's words on CUDA and on the CPU, for a kernel that was asked for by name
        refusals = ("No available kernel", "No viable backend")
        if provider.sdpa_backend is None or not str(error).startswith(refusals):
            raise
        raise Unavailable(str(error).split(". ")[0]) from error
    compare = partial(_compare, provider)
    heads = tensors[0].shape[1]
    output = result.output.unflatten(2, (heads, -1)).transpose(1, 2)
    compare("output", output, expected.exact.output, expected.eager.output)
    if provider.kind == "with statistics":
        coarse = expected.eager_float32
    elif provider.kind == "sums":
        coarse = expected.eager
    else:
        return
    for name in ("token_mass", "token_entropy"):
        exact, eager = getattr(expected.exact, name), getattr(coarse, name)
        compare(name, getattr(result, name), exact, eager)


def _compare(provider: Provider, name: str, actual: Tensor, exact: Tensor, eager: Tensor) -> None:
    try:
        assert_within_error_budget(actual, exact=exact, eager=eager)
    except AssertionError as error:
        raise AssertionError(f"{provider.name}, {name}: {error}") from None

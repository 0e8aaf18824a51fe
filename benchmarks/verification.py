"""No provider is timed before its result was compared with the truth."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.providers import Attended, Provider, Unavailable
from memattn.testing import assert_within_error_budget, explicit_cross_attention

# torch's words on CUDA and on the CPU, for a kernel that was asked for by name
_NO_KERNEL = ("No available kernel", "No viable backend")


class Truth(NamedTuple):
    """What can be judged of a case, in float64 and by eager torch in its dtype and in float32.

    Attributes:
        case: The case.
        exact: In float64.
        eager: In the case's dtype.
        eager_float32: In float32.
    """

    case: Case
    exact: Attended
    eager: Attended
    eager_float32: Attended


def truth(case: Case) -> Truth:
    """Compute what every provider's result is compared with."""
    tensors = [_judged_heads(case, tensor) for tensor in inputs(case)]

    def explicit(dtype: torch.dtype) -> Attended:
        query, key, value = (tensor.to(dtype) for tensor in tensors)
        text = case.shape.text
        result = explicit_cross_attention(query[:, :, text:], key, value)
        assert result.token_mass is not None
        assert result.token_entropy is not None
        columns = slice(text or None)
        return Attended(
            result.output, result.token_mass[:, :, columns], result.token_entropy[:, :, columns]
        )

    return Truth(case, explicit(torch.float64), explicit(case.dtype), explicit(torch.float32))


def _judged_heads(case: Case, tensor: Tensor) -> Tensor:
    """All heads of [B, H, ...], or of joint attention the first and the last [2, 1, ...].

    The whole softmax of a joint layer's heads has up to ten gigabytes in float64.
    """
    if not case.shape.text:
        return tensor
    return torch.stack([tensor[0, 0], tensor[-1, -1]])[:, None]


def first_result(provider: Provider, tensors: tuple[Tensor, ...]) -> Attended:
    """Run a provider once.

    Raises:
        Unavailable: If it has no kernel for these tensors.
    """
    try:
        # torch explains in warnings why it has no such kernel, before it says so in an error
        with warnings.catch_warnings(action="ignore", category=UserWarning), provider.chosen():
            return provider.call(*tensors)
    except RuntimeError as error:
        if provider.sdpa_backend is None or not str(error).startswith(_NO_KERNEL):
            raise
        raise Unavailable(str(error).split(". ")[0]) from error


def check(provider: Provider, result: Attended, expected: Truth) -> None:
    """Compare a result with the truth, by the error budget of the tests.

    memattn's statistics are held to the budget of a float32 run. In joint attention they rest on
    the rows' logsumexp as another library computed it, and are held to that of the case's dtype,
    as are those of who sums a softmax in that dtype.

    Args:
        provider: Whose result it is.
        result: The result.
        expected: The case's truth.

    Raises:
        Unavailable: If a rival's result is wrong: who is not memattn need not end the run.
        AssertionError: If memattn's is.
    """
    case, exact, eager, eager_float32 = expected
    output = result.output.unflatten(2, (case.shape.heads, -1)).transpose(1, 2)
    output = _judged_heads(case, output)[:, :, case.shape.text :]
    held_to_float32 = provider.kind == "with statistics" and not case.shape.text
    coarse = eager_float32 if held_to_float32 else eager
    compared = [("output", output, exact.output, eager.output)]
    for name in provider.sums:
        sums = _judged_heads(case, getattr(result, name))
        compared.append((name, sums, getattr(exact, name), getattr(coarse, name)))
    for name, actual, true, budget in compared:
        try:
            assert_within_error_budget(actual, exact=true, eager=budget)
        except AssertionError as error:
            message = f"{provider.name}, {name}: {error}"
            raise (AssertionError if provider.is_ours else Unavailable)(message) from None

"""The op behind every compiled backend of `column_statistics`.

    memattn::column_statistics_<backend>         token mass, token entropy, map

A map that was not asked for is an empty tensor of shape [0]. No result is differentiable.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memattn.ops.torch_library.derivatives import USE_REFERENCE, gradient_refusal, refusal
from memattn.types import ColumnStatisticsRequest, ColumnStatisticsResult

_SCHEMA = (
    "(Tensor query, Tensor key_columns, Tensor? logsumexp, Tensor? key_bias, Tensor? token, "
    "float scale) -> (Tensor, Tensor, Tensor)"
)


@dataclass(frozen=True)
class CompiledColumnStatistics:
    """The op of one compiled backend, called with a request."""

    op: Callable[..., tuple[Tensor, Tensor, Tensor]]

    def why_not(self, request: ColumnStatisticsRequest) -> str | None:
        """Say which derivative the request asks for that no compiled backend has."""
        return refusal(request, logsumexp=request.logsumexp, key_bias=request.key_bias)

    def forward(self, request: ColumnStatisticsRequest) -> ColumnStatisticsResult:
        """Run the op."""
        mass, entropy, token_map = self.op(*request)
        return ColumnStatisticsResult(
            mass, entropy, token_map if request.token is not None else None
        )


@functools.cache  # torch defines an op once, and an import may be tried again
def register(backend: str) -> CompiledColumnStatistics:
    """Define the op of a compiled backend, with fake and autograd; it implements it."""
    name = f"memattn::column_statistics_{backend}"
    torch.library.define(name, _SCHEMA)

    def no_backward(ctx: Any, *_: Tensor) -> None:  # noqa: ANN401
        raise RuntimeError(f"{name} has no derivative; {USE_REFERENCE}")

    torch.library.register_fake(name, _fake)
    torch.library.register_autograd(name, no_backward, setup_context=_setup_context)
    return CompiledColumnStatistics(getattr(torch.ops.memattn, name.split("::")[1]).default)


def _fake(
    query: Tensor,
    key_columns: Tensor,
    logsumexp: Tensor | None,
    key_bias: Tensor | None,
    token: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, queries, _ = query.shape
    columns = (batch, heads, key_columns.shape[2])
    rows = (batch, heads, queries) if token is not None else (0,)
    return (
        query.new_empty(columns, dtype=torch.float32),
        query.new_empty(columns, dtype=torch.float32),
        query.new_empty(rows, dtype=torch.float32),
    )


def _setup_context(
    ctx: Any,  # noqa: ANN401
    inputs: tuple[Any, ...],
    output: tuple[Tensor, ...],
) -> None:
    _, _, logsumexp, key_bias, _, _ = inputs
    reason = gradient_refusal(logsumexp=logsumexp, key_bias=key_bias)
    if reason is not None:
        raise RuntimeError(reason)
    ctx.mark_non_differentiable(*output)

"""The two ops behind a compiled backend of `cross_attention`, under its own name.

    memattn::cross_attention_<backend>           output, token mass, token entropy, map, logsumexp
    memattn::cross_attention_<backend>_backward  gradients of query, key and value

A backend may have no backward of its own, but another's (`BACKWARD_OF`).

What was not asked for is an empty tensor of shape [0]. Output and gradients are written in the
layout (B, L, H, D) and returned as the transposed view [B, H, L, D]. A row whose keys are all
removed has logsumexp 0, so that exp(logit - logsumexp) is 0 there too.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memattn.ops.torch_library.derivatives import USE_REFERENCE, gradient_refusal, refusal
from memattn.types import CrossAttentionRequest, CrossAttentionResult

_SCHEMA = (
    "(Tensor query, Tensor key, Tensor value, Tensor? key_bias, Tensor? begin_scale, "
    "Tensor? token, float scale, bool statistics, bool logsumexp) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad_output, Tensor query, Tensor key, Tensor value, Tensor? key_bias, "
    "Tensor? begin_scale, Tensor output, Tensor logsumexp, float scale) "
    "-> (Tensor, Tensor, Tensor)"
)


# The forward's logsumexp is all that a backward wants.
BACKWARD_OF = {"cuda": "triton"}


def needs_gradient(request: CrossAttentionRequest) -> bool:
    """Whether a backward may follow."""
    tensors = (request.query, request.key, request.value)
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


@dataclass(frozen=True)
class CompiledCrossAttention:
    """The op of one compiled backend, called with a request."""

    op: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]

    def why_not(self, request: CrossAttentionRequest) -> str | None:
        """Say which derivative the request asks for that no compiled backend has."""
        return refusal(request, key_bias=request.key_bias, begin_scale=request.begin_scale)

    def forward(self, request: CrossAttentionRequest) -> CrossAttentionResult:
        """Run the op, keeping logsumexp if a backward may follow."""
        keeps = request.logsumexp or needs_gradient(request)
        request = request._replace(logsumexp=keeps)
        output, mass, entropy, token_map, logsumexp = self.op(*request)
        return CrossAttentionResult(
            output,
            mass if request.statistics else None,
            entropy if request.statistics else None,
            token_map if request.token is not None else None,
            logsumexp if request.logsumexp else None,
        )


@functools.cache  # torch defines an op once, and an import may be tried again
def register(backend: str) -> CompiledCrossAttention:
    """Define the ops of a compiled backend, with fake and autograd; it implements them."""
    name = f"memattn::cross_attention_{backend}"
    torch.library.define(name, _SCHEMA)
    backward_op = _register_backward(BACKWARD_OF.get(backend, backend))

    def backward(ctx: Any, grad_output: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        gradients = backward_op(grad_output, *ctx.saved_tensors, ctx.scale)
        return (*gradients, None, None, None, None, None, None)

    torch.library.register_fake(name, _fake)
    torch.library.register_autograd(name, backward, setup_context=_setup_context)
    return CompiledCrossAttention(getattr(torch.ops.memattn, name.split("::")[1]).default)


@functools.cache
def _register_backward(backend: str) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Define the op for a backend's gradients; gives the op."""
    name = f"memattn::cross_attention_{backend}_backward"
    torch.library.define(name, _BACKWARD_SCHEMA)

    def no_double_backward(ctx: Any, *_: Tensor) -> None:  # noqa: ANN401
        raise RuntimeError(f"cross_attention has no second derivative here; {USE_REFERENCE}")

    torch.library.register_fake(name, _fake_backward)
    torch.library.register_autograd(name, no_double_backward)
    op: Callable[..., tuple[Tensor, Tensor, Tensor]]
    op = getattr(torch.ops.memattn, name.split("::")[1]).default
    return op


def _fake(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    token: Tensor | None,
    scale: float,
    statistics: bool,
    logsumexp: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, heads, queries, _ = query.shape
    keys = key.shape[2]

    def float32(wanted: bool, length: int) -> Tensor:
        shape = (batch, heads, length) if wanted else (0,)
        return query.new_empty(shape, dtype=torch.float32)

    return (
        _heads_last(query),
        float32(statistics, keys),
        float32(statistics, keys),
        float32(token is not None, queries),
        float32(logsumexp, queries),
    )


def _fake_backward(
    grad_output: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    return _heads_last(query), _heads_last(key), _heads_last(value)


def _heads_last(like: Tensor) -> Tensor:
    """An empty [B, H, L, D] tensor whose memory is laid out (B, L, H, D)."""
    batch, heads, length, dim = like.shape
    return like.new_empty((batch, length, heads, dim)).transpose(1, 2)


def _setup_context(
    ctx: Any,  # noqa: ANN401
    inputs: tuple[Any, ...],
    output: tuple[Tensor, ...],
) -> None:
    query, key, value, key_bias, begin_scale, _, scale, _, keep_logsumexp = inputs
    attention, mass, entropy, token_map, logsumexp = output
    reason = gradient_refusal(key_bias=key_bias, begin_scale=begin_scale)
    if reason is not None:
        raise RuntimeError(reason)
    if not keep_logsumexp:
        raise RuntimeError("a backward needs the rows' logsumexp: call the op with logsumexp=True")
    ctx.mark_non_differentiable(mass, entropy, token_map, logsumexp)
    ctx.save_for_backward(query, key, value, key_bias, begin_scale, attention, logsumexp)
    ctx.scale = scale

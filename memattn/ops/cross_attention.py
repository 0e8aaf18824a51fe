"""`memattn.cross_attention`: attention that also returns where the attention went."""

from torch import Tensor

from memattn.ops import dispatch
from memattn.ops.contract import cross_attention_request
from memattn.ops.torch_library.cross_attention import BACKWARD_OF, needs_gradient, register
from memattn.types import Backend, CrossAttentionRequest, CrossAttentionResult


def _torch_has(request: CrossAttentionRequest) -> bool:
    return not request.statistics and request.token is None and request.begin_scale is None


def _backward_of(backend: str, request: CrossAttentionRequest) -> str | None:
    return BACKWARD_OF.get(backend) if needs_gradient(request) else None


OPERATION = dispatch.Operation("cross_attention", register, _torch_has, _backward_of)


def cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None = None,
    begin_scale: Tensor | None = None,
    token: Tensor | None = None,
    scale: float | None = None,
    statistics: bool = True,
    backend: Backend = "auto",
) -> CrossAttentionResult:
    """Attention with the attention each key received and its entropy, from the same pass.

    With logits s = scale * query @ key^T, s[..., 0] *= begin_scale, s += key_bias and
    p = softmax(s): output = p @ value, token_mass = sum_q p and token_entropy = sum_q -p ln p,
    where -p ln p is 0 at p = 0. A row whose keys are all removed gives zeros. Sums are kept in
    float32 whatever the inputs, and a sample's numbers do not depend on the batch it is part of.

    Args:
        query: [B, H, Lq, D], any strides; float32, bfloat16, float16, or float64 where the backend
            takes it.
        key: [B, H, Lk, D].
        value: [B, H, Lk, D].
        key_bias: Added to the scaled logits [B, Lk]; -inf removes a key.
        begin_scale: Multiplies the scaled logit of key 0, before `key_bias` is added [B].
        token: Also return this key's attention column as a map [B], int64.
        scale: Multiplies the logits; D ** -0.5 by default.
        statistics: False for plain attention.
        backend: "auto" takes the first backend that can run this call, but leaves attention without
            statistics to torch where torch is faster; a named backend runs or raises.

    Returns:
        The output [B, H, Lq, D] and what was asked for beside it; the rest is None.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If an argument has the wrong shape, device or value.
        UnsupportedBackendError: If the named backend cannot run this call.

    Source:
        Attention: Vaswani et al. 2017, equation 1. Column sums as a memorization signal: Ren et
        al. 2024, arXiv:2403.11052.
    """
    request = cross_attention_request(
        query,
        key,
        value,
        key_bias=key_bias,
        begin_scale=begin_scale,
        token=token,
        scale=scale,
        statistics=statistics,
    )
    return dispatch.run(OPERATION, request, backend)


def explain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None = None,
    begin_scale: Tensor | None = None,
    token: Tensor | None = None,
    scale: float | None = None,
    statistics: bool = True,
) -> tuple[tuple[str, str | None], ...]:
    """Say which backends can run a call of `cross_attention`, and why the others cannot.

    Args:
        query: As for `cross_attention`, like all that follow.
        key: [B, H, Lk, D].
        value: [B, H, Lk, D].
        key_bias: [B, Lk] or None.
        begin_scale: [B] or None.
        token: [B] or None.
        scale: A float or None.
        statistics: Whether statistics are wanted.

    Returns:
        A pair (backend, reason) for each backend in order of preference; reason is None if it can.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If an argument has the wrong shape, device or value.
    """
    request = cross_attention_request(
        query,
        key,
        value,
        key_bias=key_bias,
        begin_scale=begin_scale,
        token=token,
        scale=scale,
        statistics=statistics,
    )
    return dispatch.reasons(OPERATION, request)

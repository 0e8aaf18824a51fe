"""How memattn is tested: the error budget, and attention with statistics the explicit way."""

import torch
from torch import Tensor

from memattn.types import CrossAttentionResult


def assert_within_error_budget(actual: Tensor, *, exact: Tensor, eager: Tensor) -> None:
    """Assert that a result is about as close to the truth as plain torch in the same dtype.

    max |actual - exact| <= 2 max |eager - exact| + one rounding of the largest exact value.

    Args:
        actual: The result under test, any shape.
        exact: The same computed in float64.
        eager: The same computed by eager torch in the dtype that `actual` was computed in.

    Raises:
        AssertionError: If the shapes differ, a value is not finite, or the budget is exceeded.

    Source:
        The rule is FlashAttention's (tests/test_flash_attn.py): self-scaling, so one strictness
        serves every dtype and shape.
    """
    # Raised, not asserted: `python -O` would let every error pass.
    if not actual.shape == exact.shape == eager.shape:
        shapes = [list(tensor.shape) for tensor in (actual, exact, eager)]
        raise AssertionError(f"got shapes {', '.join(map(str, shapes))}, expected one")
    if exact.dtype != torch.float64:
        raise AssertionError(f"exact: got {exact.dtype}, expected torch.float64")
    if actual.numel() == 0:
        return
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max().item()
    budget = 2 * (eager.double() - exact).abs().max().item() + rounding
    error = (actual.double() - exact).abs().max().item()
    if not error <= budget:  # nan is not
        raise AssertionError(f"got an error of {error:.3e}, expected at most {budget:.3e}")


def explicit_cross_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None = None,
    begin_scale: Tensor | None = None,
    token: Tensor | None = None,
    scale: float | None = None,
) -> CrossAttentionResult:
    """What users write today: the whole softmax in memory, then its sums, all in the input's dtype.

    Args:
        query: [B, H, Lq, D].
        key: [B, H, Lk, D].
        value: [B, H, Lk, D].
        key_bias: [B, Lk] or None.
        begin_scale: [B] or None.
        token: [B] or None.
        scale: D ** -0.5 by default.

    Returns:
        Every field of the result, in the query's dtype; nan in rows without keys.
    """
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scale is None else scale)
    if begin_scale is not None:
        first = scores[..., :1] * begin_scale.to(scores.dtype)[:, None, None, None]
        scores = torch.cat([first, scores[..., 1:]], dim=3)
    if key_bias is not None:
        # Not rounded first: a large bias has no digits to spare.
        scores = scores + key_bias[:, None, None, :]
    probs = scores.softmax(dim=3).to(query.dtype)
    column = None
    if token is not None:
        index = token[:, None, None, None].expand(-1, probs.shape[1], probs.shape[2], 1)
        column = probs.gather(3, index).squeeze(3)
    return CrossAttentionResult(
        probs @ value,
        probs.sum(dim=2),
        torch.special.entr(probs).sum(dim=2),
        column,
        scores.logsumexp(dim=3).to(query.dtype),
    )

"""The derivatives that no compiled backend has, each refused in a sentence."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

USE_REFERENCE = 'use backend="reference", which differentiates everything to any order'


def refusal(request: tuple[object, ...], **constants: Tensor | None) -> str | None:
    """Say which derivative a request asks for in vain; `constants` are never differentiated."""
    if _has_tangent([value for value in request if isinstance(value, Tensor)]):
        return f"it has no forward-mode derivative; {USE_REFERENCE}"
    return gradient_refusal(**constants) if torch.is_grad_enabled() else None


def gradient_refusal(**constants: Tensor | None) -> str | None:
    """Say which of the tensors requires a gradient, or None."""
    for name, tensor in constants.items():
        if tensor is not None and tensor.requires_grad:
            return f"it has no gradient for {name}; {USE_REFERENCE}"
    return None


def _has_tangent(tensors: list[Tensor]) -> bool:
    if forward_ad._current_level < 0:
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)

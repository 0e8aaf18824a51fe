"""The public operations: validation, choice of a backend, torch.library registration."""

from memattn.ops.cross_attention import cross_attention
from memattn.ops.dispatch import explain

__all__ = ["cross_attention", "explain"]

"""The public operations: validation, choice of a backend, torch.library registration."""

from memattn.ops.column_statistics import column_statistics
from memattn.ops.cross_attention import cross_attention, explain

__all__ = ["column_statistics", "cross_attention", "explain"]

"""Cross-attention that also says where the attention went, and the memorization detectors on it."""

import importlib
from typing import TYPE_CHECKING

from memattn.ops import column_statistics, cross_attention, explain
from memattn.records import Record
from memattn.types import ColumnStatisticsResult, CrossAttentionResult

if TYPE_CHECKING:
    from memattn import detectors, testbed
    from memattn.processors import AttnProcessor
    from memattn.recording import record

__version__ = "0.1.0"

__all__ = [
    "AttnProcessor",
    "ColumnStatisticsResult",
    "CrossAttentionResult",
    "Record",
    "column_statistics",
    "cross_attention",
    "detectors",
    "explain",
    "record",
    "testbed",
]

# Names that need diffusers, or are not needed by users of the op alone: imported when first used.
_LAZY_ATTRIBUTES = {"AttnProcessor": "memattn.processors", "record": "memattn.recording"}
_LAZY_MODULES = ("detectors", "testbed")


def __getattr__(name: str) -> object:
    if name in _LAZY_MODULES:
        return importlib.import_module(f"memattn.{name}")
    if name not in _LAZY_ATTRIBUTES:
        raise AttributeError(f"module 'memattn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY_ATTRIBUTES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

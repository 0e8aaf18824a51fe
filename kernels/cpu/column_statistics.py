"""Statistics of some key columns on the CPU: which calls csrc/cpu/column_statistics.cpp takes."""

from memattn.kernels.cpu.library import why_not_query
from memattn.types import ColumnStatisticsRequest


def why_not(request: ColumnStatisticsRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    return why_not_query(request.query)

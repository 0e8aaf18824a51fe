"""`memattn.cross_attention` and its rivals, on real layers."""

from collections.abc import Callable

from memattn.benchmarks.cases import Case, cross_attention_cases
from memattn.benchmarks.providers import Provider, providers

CASES, PROVIDERS = cross_attention_cases, providers


def test_cross_attention(
    case: Case, provider: Provider, timed: Callable[[Case, Provider], None]
) -> None:
    """One provider, on one layer's shape in one dtype."""
    timed(case, provider)

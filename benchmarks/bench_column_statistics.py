"""Joint attention with `memattn.column_statistics` for its text, and without, on real layers."""

from collections.abc import Callable

from memattn.benchmarks.cases import Case, joint_attention_cases
from memattn.benchmarks.joint_providers import providers
from memattn.benchmarks.providers import Provider

CASES, PROVIDERS = joint_attention_cases, providers


def test_column_statistics(
    case: Case, provider: Provider, timed: Callable[[Case, Provider], None]
) -> None:
    """One provider, on one layer's shape in one dtype."""
    timed(case, provider)

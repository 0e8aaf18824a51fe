"""Cross-attention with statistics on the CPU: which calls csrc/cpu/cross_attention.cpp takes."""

from memattn.kernels.cpu.library import CAPABILITY, why_not_query
from memattn.types import CrossAttentionRequest

# Without AVX-512, torch's attention (matrix products of a tuned library) gains on long keys.
_MOST_KEYS_WITH_AVX2 = 1024


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request, or None if it can."""
    return why_not_query(request.query)


def beats_torch(request: CrossAttentionRequest) -> bool:
    """Whether attention without statistics is faster here than torch's own."""
    if CAPABILITY == "AVX2":
        return request.key.shape[2] <= _MOST_KEYS_WITH_AVX2
    return CAPABILITY.startswith("AVX512")

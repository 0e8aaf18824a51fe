"""What a host asks of a GPU: how often it launches something, and how often it waits."""

from collections.abc import Callable
from typing import NamedTuple

from torch.profiler import ProfilerActivity, profile

# Names of the runtime's and the driver's functions begin so.
_LAUNCHES = (
    *("cudaLaunch", "cudaGraphLaunch", "cudaMemcpy", "cudaMemset"),
    *("cuLaunch", "cuGraphLaunch", "cuMemcpy", "cuMemset"),
)
_WAITS = tuple(
    f"{library}{what}Synchronize"
    for library in ("cuda", "cu")
    for what in ("Stream", "Event", "Device", "Ctx")
)


class HostCalls(NamedTuple):
    """How often a call launched kernels or copies, and how often it waited for the device."""

    launches: int
    waits: int


def host_calls(call: Callable[[], object]) -> HostCalls:
    """Count them during a call; the profiler itself may wait once more at its end."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        call()
    names = [event.name for event in profiled.events()]
    return HostCalls(
        sum(name.startswith(_LAUNCHES) for name in names),
        sum(name.startswith(_WAITS) for name in names),
    )

"""Whether a machine has something else to do, which would end up in the times."""

import os
import subprocess
import time
from collections.abc import Set
from pathlib import Path

import torch

from memattn.benchmarks.machine import cores

_SAMPLE_SECONDS = 1.0
_CORES_ALLOWED, _SHARE_ALLOWED = 0.15, 0.02  # a desktop's own work; a large machine has more of it
_GPU_PERCENT_ALLOWED = 5
_STAT = Path("/proc/stat")


def why_busy(device: str, *, after_timing: bool = False) -> str | None:
    """Say what else this machine is doing, or None if it is idle enough to time on.

    Args:
        device: "cpu" or "cuda".
        after_timing: The load average of a minute would then be our own, and is not asked.
    """
    reason = _busy_processor(after_timing=after_timing)
    return reason or (_busy_gpu() if device == "cuda" else None)


def _busy_processor(*, after_timing: bool) -> str | None:
    if _STAT.exists():
        ours = os.sched_getaffinity(0)
        before = _STAT.read_text(encoding="ascii")
        time.sleep(_SAMPLE_SECONDS)
        after = _STAT.read_text(encoding="ascii")
        used, over = cores_used(before, after, ours), "the last second"
    elif after_timing:
        return None
    else:
        used, over = os.getloadavg()[0], "the last minute"
    if used <= max(_CORES_ALLOWED, _SHARE_ALLOWED * cores()):
        return None
    return f"other processes used {used:.1f} of its {cores()} cores over {over}"


def cores_used(before: str, after: str, chosen: Set[int]) -> float:
    """Cores in use between two readings of /proc/stat, of all processes together.

    Counts everything but idling and waiting for disks: also what a hypervisor gave to others.

    Args:
        before: The first reading.
        after: The second one.
        chosen: Numbers of the cores that count.
    """
    first, last = _ticks(before, chosen), _ticks(after, chosen)
    spent = [end - start for start, end in zip(first, last, strict=True)]
    idle = spent[3] + spent[4]  # proc(5): user, nice, system, idle, iowait, irq, softirq, steal
    return len(chosen) * (1.0 - idle / max(sum(spent), 1))


def _ticks(stat: str, chosen: Set[int]) -> list[int]:
    names = {f"cpu{number}" for number in chosen}
    lines = [line.split() for line in stat.splitlines() if line.partition(" ")[0] in names]
    # guest times, after the eighth column, are part of the first two already
    return [sum(map(int, column)) for column in list(zip(*lines, strict=True))[1:9]]


def _busy_gpu() -> str | None:
    unique = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(
            [*query, f"--id={unique}"], capture_output=True, text=True, check=True
        )
        percent = int(asked.stdout)  # "[N/A]" where the GPU is shared out in parts
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        return f"nvidia-smi does not say what its GPU is doing ({error})"
    return f"its GPU is {percent} % in use" if percent > _GPU_PERCENT_ALLOWED else None

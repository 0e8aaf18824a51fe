"""Whether a machine has something else to do, which would end up in the times."""

import os
import subprocess
import time
from pathlib import Path

import torch

from memattn.benchmarks.machine import cores

_SAMPLE_SECONDS = 1.0
_CORES_ALLOWED = 0.15  # a desktop's own work
_GPU_PERCENT_ALLOWED = 5
_STAT = Path("/proc/stat")


def why_busy(device: str) -> str | None:
    """Say what else this machine is doing, or None if it is idle enough to time on."""
    reason = _busy_processor()
    return reason or (_busy_gpu() if device == "cuda" else None)


def _busy_processor() -> str | None:
    if _STAT.exists():
        before = _STAT.read_text(encoding="ascii")
        time.sleep(_SAMPLE_SECONDS)
        used, over = cores_used(before, _STAT.read_text(encoding="ascii")), "the last second"
    else:
        used, over = os.getloadavg()[0], "the last minute"
    if used <= _CORES_ALLOWED:
        return None
    return f"other processes used {used:.1f} of its {cores()} cores over {over}"


def cores_used(before: str, after: str) -> float:
    """Cores in use between two readings of /proc/stat, those of all processes together.

    Counts everything but idling and waiting for disks: also what a hypervisor gave to others.
    """
    first, last = _ticks(before), _ticks(after)
    spent = [end - start for start, end in zip(first, last, strict=True)]
    idle = spent[3] + spent[4]  # proc(5): user, nice, system, idle, iowait, irq, softirq, steal
    number = sum(line[:3] == "cpu" and line[3:4].isdigit() for line in after.splitlines())
    return number * (1.0 - idle / max(sum(spent), 1))


def _ticks(stat: str) -> list[int]:
    # guest times, after the eighth column, are part of the first two already
    return [int(field) for field in stat.splitlines()[0].split()[1:9]]


def _busy_gpu() -> str | None:
    unique = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(
            [*query, f"--id={unique}"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        return f"nvidia-smi does not say what its GPU is doing ({error})"
    percent = int(asked.stdout.strip())
    return f"its GPU is {percent} % in use" if percent > _GPU_PERCENT_ALLOWED else None

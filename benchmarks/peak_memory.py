"""How much memory a call needs at its peak."""

import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """The most that tensors held at once during a call, beyond what they held before it.

    Counted by torch's allocator; on the CPU, which keeps no account, event by event. What the
    process holds, as the operating system sees it, does not fall when tensors are freed, and hides
    a megabyte behind the gigabytes that were needed once. What native code takes without torch's
    allocator is not seen.

    Args:
        call: Makes tensors.
        device: On which of them: "cpu" or "cuda".
    """
    if device == "cuda":
        gc.collect()  # what is freed meanwhile would hide as much
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated() - before
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            call()
        profiled.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    changes.sort(key=lambda event: event["ts"])
    held = peak = 0
    for change in changes:
        held += change["args"]["Bytes"]
        peak = max(peak, held)
    return int(peak)

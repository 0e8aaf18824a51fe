"""What was measured on, and with: facts that stand in every results file."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import memattn
from memattn import _extension

_PACKAGES = ("torch", "triton", "diffusers", "flash-colreduce")


def folder_name(device: str) -> str:
    """The device's folder below `benchmarks/results`, e.g. "cpu-2-cores" or "h200"."""
    if device == "cuda":
        name: str = torch.cuda.get_device_name()
        return "-".join(name.lower().replace("nvidia", "").split())
    return f"cpu-{cores()}-cores"


def cores() -> int:
    """How many cores this process may use."""
    # Where the system cannot say, it cannot restrict either.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(device: str) -> dict[str, object]:
    """Device, versions and the checkout's commit."""
    return {
        "folder": folder_name(device),
        "device_type": device,
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "cpu_capability": _cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "memattn": memattn.__version__,
        **{package: _version(package) for package in _PACKAGES},
        "commit": _commit(),
    }


def _cpu_capability() -> str:
    """The instruction set of the cpu kernels; torch's own where they were not compiled."""
    try:
        _extension.load("cpu")
    except ImportError:
        return torch.backends.cpu.get_cpu_capability()
    capability: str = torch.ops.memattn.cpu_capability()
    return capability


def _processor() -> str:
    """The processor's name, which Linux keeps in a file."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text(encoding="utf-8").splitlines() if known.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, with a plus sign if files differ from it; None where nobody knows."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    try:
        described = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None

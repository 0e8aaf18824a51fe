"""Say what is installed here: versions, devices, which kernels can run and why others cannot."""

import argparse
from importlib import metadata

_PACKAGES = ("torch", "diffusers", "transformers", "safetensors", "numpy")


def configure(parser: argparse.ArgumentParser) -> None:
    """The command has no options."""


def run(arguments: argparse.Namespace) -> None:
    """Print the facts."""
    import platform

    import memattn
    from memattn.cli.tables import table

    rows = [["memattn", memattn.__version__], ["python", platform.python_version()]]
    rows += [[package, _version(package)] for package in _PACKAGES]
    print(table(["package", "version"], rows))
    print()
    print(table(["device", "what"], _devices()))
    print()
    print(table(["device", "kernels", "cross_attention, float32, 77 tokens"], _backends()))
    print()
    print(f"cpu kernels: {_cpu_kernels()}")
    print(f"testbed: {_testbed()}")


def _version(package: str) -> str:
    """Installed version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices() -> list[list[str]]:
    """The CPU, and every CUDA device with its memory."""
    import torch

    found = [["cpu", f"{torch.get_num_threads()} threads"]]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        found.append([f"cuda:{index}", f"{properties.name}, {memory:.0f} GiB"])
    return found


def _backends() -> list[list[str]]:
    """Whether each backend can run a small call on each kind of device, and why not."""
    import torch

    import memattn

    rows = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        query = torch.zeros(1, 8, 64, 40, device=device)
        key = torch.zeros(1, 8, 77, 40, device=device)
        for backend, reason in memattn.explain(query, key, key):
            rows.append([device, backend, reason or "can run"])
    return rows


def _cpu_kernels() -> str:
    """The instruction set they run with and where their library lies, or why there is none."""
    import torch

    from memattn import _extension

    try:
        _extension.load("cpu")
    except ImportError as error:
        return str(error)
    return f"{torch.ops.memattn.cpu_capability()}, {_extension.path('cpu')}"


def _testbed() -> str:
    """How many prompts the testbed has and how many of them are verified copies."""
    from memattn.cli.pipelines import quiet_libraries
    from memattn.errors import TestbedError

    try:
        with quiet_libraries():
            from memattn import testbed

            manifest = testbed.load_manifest()
    except TestbedError:
        return "its data are missing or damaged here; `memattn testbed train` makes them anew"
    memorized = sum(entry.is_memorized for entry in manifest.entries)
    return f"{len(manifest.entries)} prompts, {memorized} of them verified copies"

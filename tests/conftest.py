"""Backends and devices found on this machine, the seed, and no network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import hypothesis
import pytest
import torch

import memattn

# A loaded machine is no failure, and a failure must come again.
hypothesis.settings.register_profile("memattn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("memattn")

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _why_not(device):
    tiny = torch.zeros(1, 1, 1, 8, device=device)
    return memattn.explain(tiny, tiny, tiny)


REASONS = {device: _why_not(device) for device in DEVICES}


def pytest_generate_tests(metafunc):
    """Run a test that takes `backend` and `device` once for each pair found here.

    One that takes `compiled_backend` is about an op behind `torch.library`: all but the reference.
    """
    for argument in ("backend", "compiled_backend"):
        if {argument, "device"} <= set(metafunc.fixturenames):
            pairs = [
                pytest.param(backend, device, marks=[pytest.mark.gpu] if device == "cuda" else [])
                for device in DEVICES
                for backend, reason in REASONS[device]
                if reason is None and (argument, backend) != ("compiled_backend", "reference")
            ]
            metafunc.parametrize((argument, "device"), pairs)


def pytest_terminal_summary(terminalreporter):
    for device in DEVICES:
        found = [backend for backend, reason in REASONS[device] if reason is None]
        terminalreporter.write_line(f"backends exercised on {device}: {', '.join(found)}")
        for backend, reason in REASONS[device]:
            if reason is not None:
                terminalreporter.write_line(f"  not {backend}: {reason}")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)

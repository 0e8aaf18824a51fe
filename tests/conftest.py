"""Backends and devices found on this machine, the seed, and no network."""

import os
import re

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import hypothesis
import pytest
import torch

import memattn
from memattn.errors import UnsupportedBackendError
from memattn.ops import dispatch
from memattn.ops.column_statistics import OPERATION as COLUMN_STATISTICS
from memattn.ops.contract import column_statistics_request

# A loaded machine is no failure, and a failure must come again.
hypothesis.settings.register_profile("memattn", deadline=None, derandomize=True)
hypothesis.settings.load_profile("memattn")

# Refusals by dtype, dimension or number of keys, or of a whole operation; and the emulator's.
CUDA_TAKES_LESS = re.compile(
    r"backend 'cuda' cannot run this call: it takes "
    r"(torch\.float16|head dim|up to|16 bits|\d+ bytes)"
    r"|backend 'cuda' cannot run this call: .*(no kernel for|not compiled here|no gradients here)"
)
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _why_not(device):
    tiny = torch.zeros(1, 1, 1, 8, device=device)
    columns = column_statistics_request(tiny, tiny, None, key_bias=None, token=None, scale=None)
    half = torch.zeros(1, 1, 1, 64, device=device, dtype=torch.float16)  # what cuda takes
    attention = dict(memattn.explain(half, half, half))
    attention |= {name: why for name, why in memattn.explain(tiny, tiny, tiny) if why is None}
    return {
        "cross_attention": tuple(attention.items()),
        "column_statistics": dispatch.reasons(COLUMN_STATISTICS, columns),
    }


REASONS = {device: _why_not(device) for device in DEVICES}


def pytest_generate_tests(metafunc):
    """Run a test that takes `backend` and `device` once for each pair found here.

    One that takes `compiled_backend` is about an op behind `torch.library`: all but the reference.
    A file about another operation than `cross_attention` names it in OPERATION.
    """
    operation = getattr(metafunc.module, "OPERATION", "cross_attention")
    for argument in ("backend", "compiled_backend"):
        if {argument, "device"} <= set(metafunc.fixturenames):
            pairs = [
                pytest.param(backend, device, marks=[pytest.mark.gpu] if device == "cuda" else [])
                for device in DEVICES
                for backend, reason in REASONS[device][operation]
                if reason is None and (argument, backend) != ("compiled_backend", "reference")
            ]
            metafunc.parametrize((argument, "device"), pairs)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip what a backend made for few shapes refuses; the other backends take all of it."""
    try:
        return (yield)
    except UnsupportedBackendError as error:
        if CUDA_TAKES_LESS.match(str(error)):
            pytest.skip(str(error))
        raise


def pytest_terminal_summary(terminalreporter):
    for device in DEVICES:
        for operation, pairs in REASONS[device].items():
            found = ", ".join(backend for backend, reason in pairs if reason is None)
            terminalreporter.write_line(f"backends of {operation} exercised on {device}: {found}")
            for backend, reason in pairs:
                if reason is not None:
                    terminalreporter.write_line(f"  not {backend}: {reason}")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)

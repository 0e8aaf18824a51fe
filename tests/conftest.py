"""Backends and devices found on this machine, the seed, and no network."""

import importlib.util
import os
import re

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub

import pytest
import torch

import memattn
from memattn.errors import UnsupportedBackendError
from memattn.ops import dispatch
from memattn.ops.column_statistics import OPERATION as COLUMN_STATISTICS
from memattn.ops.contract import column_statistics_request
from tests.gpus import too_few_on_cuda

if importlib.util.find_spec("hypothesis"):  # or the files that import it fail, and no others
    from hypothesis import settings

    # A loaded machine is no failure, and a failure must come again.
    settings.register_profile("memattn", deadline=None, derandomize=True)
    settings.load_profile("memattn")

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


def pytest_addoption(parser):
    parser.addoption(
        "--least-on-cuda",
        type=int,
        default=0,
        metavar="N",
        help="fail where the cuda backend runs and fewer of its tests passed: most were skipped",
    )


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


def _too_few(config):
    """Why so few tests of the cuda backend are a failure, or None."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a process of pytest-xdist's, whose tests another one counts
        return None
    runs = ("cuda", None) in REASONS.get("cuda", {}).get("cross_attention", ())
    passed = [report.nodeid for report in reporter.stats.get("passed", ())]
    return too_few_on_cuda(passed, config.getoption("least_on_cuda")) if runs else None


def pytest_sessionfinish(session):
    if _too_few(session.config) is not None:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    few = _too_few(terminalreporter.config)
    if few is not None:
        terminalreporter.write_line(few, red=True)
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

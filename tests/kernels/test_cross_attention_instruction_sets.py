"""The cpu kernels with every instruction set that this machine has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memattn import _extension
from tests.compilers import needs_cpu_library

pytestmark = needs_cpu_library

# In rising order, in torch's own words. Only this process has not been capped by the tests.
SETS = ("default", "avx2", "avx512")
BEST = torch.backends.cpu.get_cpu_capability().lower()
HERE = SETS[: SETS.index(BEST) + 1] if BEST in SETS else SETS[:1]


def run(*arguments, **environment):
    """A new process that imports from where this one does: not the checkout's library."""
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONSAFEPATH": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **paths, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", HERE)
def test_every_set_is_within_the_error_budget_and_obeys_the_definition(name):
    # One thread: hundreds of small calls, while other tests may have the other processors.
    settings = {"ATEN_CPU_CAPABILITY": name, "OMP_NUM_THREADS": "1"}
    done = run("-m", "tests.kernels.instruction_set", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{name.upper()} {_extension.path('cpu')}"


def test_this_process_runs_the_best_that_torch_runs():
    # Its bfloat16 instructions have no word of their own in torch.
    assert torch.ops.memattn.cpu_capability().removesuffix("_BF16") == HERE[-1].upper()


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("default", {8: False}),
        ("avx2", {1024: True, 1025: False}),
        ("avx512", {1025: True}),
    ],
)
def test_auto_leaves_plain_attention_to_torch_where_that_is_faster(name, runs):
    if name not in HERE:
        pytest.skip(f"this machine has no {name}")
    program = (
        "import torch, memattn\n"
        "from memattn.kernels.cpu import cross_attention as kernel\n"
        "from memattn.ops.contract import cross_attention_request\n"
        f"for keys in {list(runs)}:\n"
        "    key = torch.zeros(1, 1, keys, 8)\n"
        "    request = cross_attention_request(key, key, key, key_bias=None, begin_scale=None,\n"
        "                              token=None, scale=None, statistics=False)\n"
        "    print(kernel.why_not(request), kernel.beats_torch(request))\n"
    )
    done = run("-c", program, ATEN_CPU_CAPABILITY=name)
    assert done.stdout == "".join(f"None {beats}\n" for beats in runs.values()), done.stderr

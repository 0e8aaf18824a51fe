"""Which backend runs, and what a backend that cannot run says."""

import os
import subprocess
import sys

import pytest
import torch

import memattn
from memattn import _env
from memattn.errors import UnsupportedBackendError
from memattn.ops import dispatch

TENSORS = (torch.zeros(1, 1, 2, 8), torch.zeros(1, 1, 3, 8), torch.zeros(1, 1, 3, 8))


def test_explain_names_every_backend_in_order_of_preference():
    pairs = memattn.explain(*TENSORS)
    assert [name for name, _ in pairs] == ["cuda", "triton", "cpu", "reference"]
    assert pairs[-1] == ("reference", None)


def test_a_named_backend_runs_or_raises_the_sentence_that_explain_gives():
    for name, reason in memattn.explain(*TENSORS):
        if reason is None:
            memattn.cross_attention(*TENSORS, backend=name)
            continue
        with pytest.raises(UnsupportedBackendError) as caught:
            memattn.cross_attention(*TENSORS, backend=name)
        assert str(caught.value) == f"backend {name!r} cannot run this call: {reason}"


def test_an_unknown_backend_is_refused():
    sentence = "^backend: got 'fast', expected one of auto, cuda, triton, cpu, reference$"
    with pytest.raises(ValueError, match=sentence):
        memattn.cross_attention(*TENSORS, backend="fast")


def test_the_environment_variable_stands_in_for_auto_only(monkeypatch):
    monkeypatch.setattr(_env, "BACKEND", "quick")
    with pytest.raises(ValueError, match=r"^MEMATTN_BACKEND: got 'quick', expected one"):
        memattn.cross_attention(*TENSORS)
    memattn.cross_attention(*TENSORS, backend="reference")


def test_the_environment_variable_is_read():
    code = "from memattn import _env; print(_env.BACKEND)"
    environment = {**os.environ, "MEMATTN_BACKEND": "reference"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "reference\n"


BACKEND_FILES = {
    "cpu": """
import torch

@torch.library.impl("memattn::cross_attention_cpu", "default")
def forward(query, key, value, key_bias, begin_scale, token, scale, statistics, logsumexp):
    empty = query.new_empty(0, dtype=torch.float32)
    return (query * 2, empty, empty.clone(), empty.clone(), empty.clone())

def why_not(request):
    return "statistics: got True, expected False" if request.statistics else None

def beats_torch(request):
    return request.key.shape[2] < 9
""",
    "triton": "import a_package_that_is_not_installed",
}
PROGRAM = """
import torch, memattn, memattn.kernels
memattn.kernels.__path__.insert(0, {folder!r})
query, key = torch.ones(1, 1, 2, 8), torch.ones(1, 1, 3, 8)
for name, reason in memattn.explain(query, key, key):
    print(name, "|", reason)
print(float(memattn.cross_attention(query, key, key).output.mean()))
print(float(memattn.cross_attention(query, key, key, statistics=False).output.mean()))
many = torch.ones(1, 1, 9, 8)
plain = {{"statistics": False}}
print(float(memattn.cross_attention(query, many, many, **plain).output.mean()))
print(float(memattn.cross_attention(query, many, many, **plain, backend="cpu").output.mean()))
plain["begin_scale"] = torch.ones(1)
print(float(memattn.cross_attention(query, many, many, **plain).output.mean()))
"""


def test_a_backend_is_one_new_file_and_a_missing_package_is_a_reason(tmp_path):
    for name, source in BACKEND_FILES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "cross_attention.py").write_text(source)
    program = PROGRAM.format(folder=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    missing = "No module named 'a_package_that_is_not_installed'"
    assert done.stdout.splitlines()[1:] == [
        f"triton | its kernels could not be imported ({missing})",
        "cpu | statistics: got True, expected False",
        "reference | None",
        "1.0",  # auto went on to the reference
        "2.0",  # auto took the new backend
        "1.0",  # auto left it to torch's own attention, which is faster
        "2.0",  # a named backend runs
        "2.0",  # torch's own attention has no begin_scale
    ]


SLOW_PROGRAM = """
import threading, torch, memattn, memattn.kernels
memattn.kernels.__path__.insert(0, {folder!r})
query, key = torch.ones(1, 1, 2, 8), torch.ones(1, 1, 3, 8)
results = []
def use():
    results.append(float(memattn.cross_attention(query, key, key, statistics=False).output.mean()))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(results)
"""
BROKEN_PROGRAM = """
import torch, memattn, memattn.kernels
memattn.kernels.__path__.insert(0, {folder!r})
query, key = torch.ones(1, 1, 2, 8), torch.ones(1, 1, 3, 8)
for _ in range(2):
    try:
        memattn.explain(query, key, key)
    except ImportError as error:
        print(error.name)
"""


@pytest.mark.parametrize(
    ("program", "first_line", "printed"),
    [
        (SLOW_PROGRAM, "import time; time.sleep(0.3)", f"{[2.0] * 8}"),
        (BROKEN_PROGRAM, "import memattn.missing", "memattn.missing\nmemattn.missing"),
    ],
    ids=["used by many threads at first", "broken twice"],
)
def test_a_backend_is_loaded_once_and_whole(tmp_path, program, first_line, printed):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "__init__.py").touch()
    (tmp_path / "cpu" / "cross_attention.py").write_text(f"{first_line}\n{BACKEND_FILES['cpu']}")
    code = program.format(folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (printed, "")


def test_a_backend_that_lacks_an_operation_says_so():
    operation = dispatch.Operation("pooling", register=None)
    assert dict(dispatch.reasons(operation, None))["reference"] == "it has no kernel for pooling"


COMPILED_PROGRAM = """
import torch, memattn
query, key = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 3, 8)
def both(query, key):
    attention = memattn.cross_attention(query, key, key)
    return attention.token_mass - memattn.column_statistics(query, key).token_mass
graph = torch.compile(both, fullgraph=True, backend="eager")
print(bool(graph(query, key).abs().max() < 1e-6))
"""


def test_what_is_first_called_by_a_compiled_function_is_loaded_while_it_is_traced():
    done = subprocess.run(
        [sys.executable, "-c", COMPILED_PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr

"""The table of hardware counters, from text as `ncu --csv --page raw` writes it."""

import csv
import re
from pathlib import Path

import pytest
import torch

from memattn.benchmarks import counters
from memattn.benchmarks.cases import Case
from memattn.benchmarks.shapes import SHAPES
from memattn.errors import MemattnError

CALLS = [(Case(SHAPES[0], "bf16", "cuda"), "cuda"), (Case(SHAPES[0], "bf16", "cuda"), "triton")]

# As the raw page is: ncu's remarks, a line of names, one of units, and one for each kernel; commas
# between thousands, and n/a for what a GPU does not count. Of the tensor pipe's two names this GPU
# has the second.
ABOUT = ["ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Context", "Stream"]
ABOUT += ["Block Size", "Grid Size", "Device", "CC"]
NAMES = [name for alternatives in counters.METRICS.values() for name in alternatives]
UNITS = ["nsecond", "byte", "byte", "%", "%", "%", "%", "%", "%", "register/thread", "%"]
COUNTED = ["12,345", "8,601,600", "2,097,152", "61.5", "23.25", "n/a", "18.75", "33.1", "42"]
COUNTED += ["168", "24.9"]
KERNELS = [
    "at::cuda::<unnamed>::spin_kernel(long)",
    "void memattn::cuda::short_keys_kernel<(memattn::cuda::Dtype)1, 40, 80, 1>(ForwardArguments)",
    "memattn::cuda::<unnamed>::fold_kernel(FoldArguments)",
    "spin_kernel(long)",
    "cross_attention_short_kernel",
]


def quoted(cells):
    return ",".join(f'"{cell}"' for cell in cells)


def text(kernels=KERNELS, units=UNITS):
    lines = ["==PROF== Connected to process 4242 (/usr/bin/python3.12)"]
    lines += [quoted([*ABOUT, *NAMES]), quoted([""] * len(ABOUT) + units)]
    for number, name in enumerate(kernels):
        about = [str(number), "4242", "python3.12", "127.0.0.1", name, "1", "7"]
        about += ["(128, 1, 1)", "(256, 1, 1)", "0", "9.0"]
        lines.append(quoted([*about, *COUNTED]))
    return "\n".join([*lines, "==PROF== Disconnected from process 4242\n"])


def test_each_kernel_is_a_line_under_the_call_that_launched_it():
    lines = counters.table(text(), CALLS)
    assert [line[:4] for line in lines] == [
        ["sd14_64x64", "bf16", "cuda", "short_keys_kernel"],
        ["sd14_64x64", "bf16", "cuda", "fold_kernel"],
        ["sd14_64x64", "bf16", "triton", "cross_attention_short_kernel"],
    ]
    told = dict(zip(counters.COLUMNS, lines[0], strict=True))
    assert told["duration_us"] == "12.345"
    assert told["dram_read_bytes"] == "8601600"
    assert told["tensor_pipe_percent"] == "18.75"
    assert told["special_function_pipe_percent"] == "33.1"
    assert (told["issue_slots_percent"], told["registers"]) == ("42", "168")
    assert told["occupancy_percent"] == "24.9"


def test_a_counter_that_a_gpu_lacks_is_empty_and_breaks_nothing(monkeypatch):
    monkeypatch.setattr(counters, "METRICS", {**counters.METRICS, "more": ("not__there.sum",)})
    lines = counters.table(text().replace('"23.25"', '"n/a"').replace('"12,345"', '"n/a"'), CALLS)
    told = dict(zip((*counters.COLUMNS, "more"), lines[0], strict=True))
    assert told["duration_us"] == told["l2_hit_percent"] == told["more"] == ""
    assert told["dram_bandwidth_percent"] == "61.5"


def test_calls_that_are_missing_are_one_sentence():
    with pytest.raises(MemattnError, match=r"^got 1 calls from ncu, expected 2\.$"):
        counters.table(text(KERNELS[:3]), CALLS)


def test_another_unit_of_time_is_refused():
    with pytest.raises(MemattnError, match="got durations in 'msecond' from ncu, expected nano"):
        counters.table(text(units=["msecond", *UNITS[1:]]), CALLS)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU by name only, and an `ncu` that writes what it is told to where it is asked to."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(counters, "calls", lambda: CALLS)
    monkeypatch.setattr(counters, "_CUDA", str(tmp_path))
    (tmp_path / "said").write_text(text())

    def install(status=0):
        program = tmp_path / "ncu"
        program.touch(mode=0o755)
        program.write_text(
            f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n'
            'while [ "$1" != --log-file ]; do shift; done\n'
            f'cp {tmp_path}/said "$2"\nexit {status}\n'
        )

    return install


def test_the_table_is_written_from_what_ncu_says(gpu, tmp_path, capsys):
    gpu()
    counters.main([str(tmp_path / "new" / "counters.csv")])
    with (tmp_path / "new" / "counters.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    assert tuple(header) == counters.COLUMNS
    assert lines == counters.table(text(), CALLS)
    asked = (tmp_path / "asked").read_text()
    assert "--clock-control none" in asked
    assert all(name in asked for name in NAMES)
    for name in ("short_keys_kernel", "cross_attention_", "spin_kernel"):
        assert name in asked.partition("--kernel-name regex:")[2].partition(" ")[0]
    with pytest.raises(SystemExit, match="is there already, and is not replaced"):
        counters.main([str(tmp_path / "new" / "counters.csv")])


def test_without_ncu_it_refuses_in_one_sentence(gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"^counters: got no ncu on the path, expected Nsight"):
        counters.main([str(tmp_path / "counters.csv")])
    assert not (tmp_path / "counters.csv").exists()


def test_what_ncu_cannot_do_is_told_in_its_words(gpu, tmp_path):
    gpu(status=1)
    said = "==ERROR== ERR_NVGPUCTRPERM - no permission to access the counters."
    (tmp_path / "said").write_text(f"==PROF== Connected\n{said}\n")
    with pytest.raises(SystemExit, match=r"exit code 1: ERR_NVGPUCTRPERM - no permission"):
        counters.main([str(tmp_path / "counters.csv")])
    assert not (tmp_path / "counters.csv").exists()


def test_every_kernel_that_cuda_launches_is_counted():
    sources = (Path(__file__).parents[2] / "csrc" / "cuda").glob("*")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    kernels = re.findall(r"__global__[^;{]*?\b(\w+_kernel)\(", text)
    assert len(kernels) >= 3
    assert [name for name in kernels if not any(part in name for part in counters._OURS)] == []

import json
import re

import pytest

from memattn.benchmarks.results import PairedRatio, from_pytest_benchmark, load, save
from memattn.errors import InputError
from tests.benchmarks.runs import MACHINE, case, gpu_kernels, joint, kernels, recording

KERNEL = {
    "kind": "kernel",
    "provider": "memattn_cpu",
    "gives": "with statistics",
    "shape": "sd14_8x8",
    "keys": 77,
    "bytes": 1000,
    "flops": 2000,
    "dtype": "fp32",
    "turns_us": [3.0, 4.0],
    "model": "not kept",
}
PAIRED = {
    "kind": "paired",
    "denoiser": "sd14",
    "what": "whole denoiser",
    "dtype": "fp32",
    "backend": "cpu",
    "ratio": 0.99,
    "ratio_low": 0.98,
    "ratio_high": 1.0,
    "pairs": 40,
    "stock_seconds": 2.5,
    "calls": "not kept",
}


RUNS = {
    "kernels": kernels(case("sd14_8x8", "fp32", ours=(6.0,) * 3)),
    "on a GPU": gpu_kernels(case("sd14_8x8", "fp32", ours=(6.0,) * 3)),
    "joint": joint(),
    "recording": recording(),
    "recording on a GPU": recording(launches=(5300, 5100), waits=(9, 4)),
}


@pytest.mark.parametrize("results", RUNS.values(), ids=RUNS)
def test_results_come_back_as_they_were_saved(tmp_path, results):
    path = tmp_path / "cpu" / "run.json"
    save(results, path)
    assert load(path) == results


def test_a_saved_file_has_a_line_for_each_timing_and_no_needless_digits(tmp_path):
    path = tmp_path / "run.json"
    save(kernels(case("sd14_8x8", "fp32", ours=(1 / 3, 2 / 3, 1.0))), path)
    lines = path.read_text().splitlines()
    assert sum('"provider": "sdpa"' in line for line in lines) == 1
    assert "[0.33333, 0.66667, 1.0]" in path.read_text()


def test_a_timing_without_kernel_times_has_the_fields_that_it_always_had(tmp_path):
    path = tmp_path / "run.json"
    save(RUNS["kernels"], path)
    (first, *_) = json.loads(path.read_text())["timings"]
    assert list(first) == [
        *("shape", "keys", "bytes", "flops", "dtype", "provider", "gives", "turns_us")
    ]


def test_both_kinds_are_read_from_what_pytest_benchmark_writes(tmp_path):
    benchmarks = [{"extra_info": info, "stats": {}} for info in (KERNEL, PAIRED, {})]
    path = tmp_path / "benchmark.json"
    path.write_text(
        json.dumps(
            {
                "datetime": "2026-11-22T20:00:00+00:00",
                "machine_info": {"node": "a host", "memattn": MACHINE},
                "benchmarks": benchmarks,
            }
        )
    )
    results = from_pytest_benchmark(path)
    assert results.date == "2026-11-22"
    assert results.machine == MACHINE
    (timing,) = results.timings
    assert (timing.flops, timing.gives) == (2000, "with statistics")
    assert timing.turns_us == (3.0, 4.0)
    measured = {name: PAIRED[name] for name in PairedRatio._fields if name in PAIRED}
    assert results.paired == (PairedRatio(**measured, extra_peak_bytes=None, record_bytes=None),)


GOOD = {"date": "2026-11-22", "machine": MACHINE}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        json.dumps({**GOOD, "timings": []}),
        json.dumps({**GOOD, "machine": {}, "timings": [KERNEL]}),
        json.dumps({**GOOD, "machine": {**MACHINE, "limits": {"copy": 1.0}}, "timings": [KERNEL]}),
        json.dumps({**GOOD, "timings": [{**KERNEL, "turns_us": [1.0, "a"]}]}),
        json.dumps({**GOOD, "timings": [{**KERNEL, "turns_us": [1.0, 0.0]}]}),
        json.dumps({**GOOD, "timings": [{**KERNEL, "turns_us": [1.0]}]}),
        json.dumps({**GOOD, "timings": [KERNEL, {**KERNEL, "turns_us": [1.0] * 3}]}),
        json.dumps({**GOOD, "timings": [{**KERNEL, "warm_us": [1.0]}]}),
        json.dumps({**GOOD, "timings": [{**KERNEL, "cold_us": [1.0, -1.0]}]}),
        json.dumps({**GOOD, "paired": [{**PAIRED, "ratio": None}]}),
    ],
)
def test_another_file_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    expected = f"^got {re.escape(str(path))}, expected a file that `memattn bench --save` wrote"
    with pytest.raises(InputError, match=expected):
        load(path)


def test_a_file_that_is_not_there_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"No such file"):
        load(tmp_path / "missing.json")

import json
import re

import pytest

from memattn.benchmarks.results import PairedRatio, from_pytest_benchmark, load, save
from memattn.errors import InputError
from tests.benchmarks.runs import MACHINE, case, kernels, recording

KERNEL = {
    "kind": "kernel",
    "provider": "memattn_cpu",
    "gives": "with statistics",
    "shape": "sd14_8x8",
    "keys": 77,
    "bytes": 1000,
    "dtype": "fp32",
    "floor_us": 2.0,
    "turns_us": [3.0, 4.0],
    "model": "not kept",
}
PAIRED = {
    "kind": "paired",
    "denoiser": "sd14",
    "what": "whole denoiser",
    "dtype": "fp32",
    "ratio": 0.99,
    "ratio_low": 0.98,
    "ratio_high": 1.0,
    "pairs": 40,
    "stock_seconds": 2.5,
    "calls": "not kept",
}


@pytest.mark.parametrize(
    "results", [kernels(case("sd14_8x8", "fp32", ours=(6.0,) * 3)), recording()]
)
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


def test_both_kinds_are_read_from_what_pytest_benchmark_writes(tmp_path):
    stats = {"median": 3.5e-6, "iqr": 1e-6, "rounds": 60}
    benchmarks = [{"extra_info": info, "stats": stats} for info in (KERNEL, PAIRED, {})]
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
    assert (timing.median_us, timing.iqr_us, timing.rounds) == pytest.approx((3.5, 1.0, 60))
    assert timing.turns_us == (3.0, 4.0)
    measured = {name: PAIRED[name] for name in PairedRatio._fields if name in PAIRED}
    assert results.paired == (PairedRatio(**measured, extra_peak_bytes=None, record_bytes=None),)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"date": 1, "machine": {}, "timings": [{}]}'])
def test_another_file_is_refused_in_one_sentence(tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text)
    expected = f"^got {re.escape(str(path))}, expected a file that `memattn bench --save` wrote"
    with pytest.raises(InputError, match=expected):
        load(path)

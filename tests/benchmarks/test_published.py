"""The README's table and the committed figures are what the committed measurements give."""

from pathlib import Path

import pytest

from memattn.benchmarks.figure import figure
from memattn.benchmarks.published import BEGIN, END, newest, section
from memattn.benchmarks.results import load, save
from tests.benchmarks.runs import case, kernels, recording

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def committed():
    return newest(RESULTS) or pytest.skip("no measurements are committed yet")


def test_the_readmes_tables_are_those_of_the_newest_results():
    files = committed()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.partition(BEGIN)[2].partition(END)[0]
    assert shown.strip() == section(files).strip(), "paste what `memattn bench --markdown` prints"


def test_every_committed_figure_is_drawn_from_the_newest_results_beside_it():
    kernels_of = {path.parent: load(path) for path in committed() if load(path).timings}
    for picture in RESULTS.glob("*/*.svg"):
        expected = figure(kernels_of[picture.parent])
        assert picture.read_text(encoding="utf-8") == expected, "memattn bench --figure draws it"


def test_the_newest_usual_run_of_each_kind_and_device_is_taken(tmp_path):
    run = recording()
    busy = run._replace(machine={**run.machine, "busy": "other processes used 1.0 of its 2 cores"})
    for device in ("cpu-2-cores", "h200"):
        for name in ("2026-11-21", "2026-11-22", "2026-11-20-recording"):
            save(run, tmp_path / device / f"{name}.json")
        save(busy, tmp_path / device / "2026-11-24.json")
        for name in ("2026-11-23-sd14_8x8", "2026-11-23-all", "2026-11-23-recording-all", "notes"):
            (tmp_path / device / f"{name}.json").touch()
    (tmp_path / "readme.txt").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in newest(tmp_path)] == [
        "cpu-2-cores/2026-11-22.json",
        "cpu-2-cores/2026-11-20-recording.json",
        "h200/2026-11-22.json",
        "h200/2026-11-20-recording.json",
    ]


def test_the_section_has_ratios_means_verdicts_and_where_they_come_from(tmp_path):
    run, paired = tmp_path / "2026-11-22.json", tmp_path / "2026-11-22-recording.json"
    save(
        kernels(
            case("sd14_64x64", "fp32", ours=(6.0,) * 3),
            case("sd14_64x64", "bf16", ours=(5.2,) * 3),
            case("sd14_32x32", "fp32", ours=(8.0,) * 3),
        ),
        run,
    )
    save(recording(), paired)
    text = section([run, paired])
    lines = text.splitlines()
    assert (
        "| sd14_64x64 | fp32 | 6 | 0.60 (0.60-0.60) | 0.75 math | 0.15 | 1.20 (1.20-1.20) " in text
    )
    assert "| mean |  |  | 0.63 | 0.79 | 0.16 | 1.26 | 1.26 |" in lines
    assert "| worst |  |  | 0.80 | 1.00 | 0.20 | 1.60 | 1.60 |" in lines
    worst = "0.80 sd14_32x32 fp32"
    met = f"| torch's attention, 77 tokens | 0.63 | {worst} | 0.70, worst 0.90 | met |"
    assert met in lines
    fastest = "1.00 sd14_32x32 fp32"
    assert f"| the fastest plain attention, 77 tokens | 0.79 | {fastest} |  |  |" in lines
    assert "| sd14 | whole denoiser | fp32 | 0.990 (0.981-1.004) | 1.01, met |" in lines
    assert "| sd14 | cross-attention layers | fp32 | 0.700 (0.680-0.710) | 0.95, met |" in lines
    memory = "1.23 MB more were in use in torch's allocator; the record holds 1.10 MB."
    assert f"sd14, fp32: recorded by the cpu backend, at the peak {memory}" in lines
    place = "Some Processor, 2 threads, AVX2, torch 2.13.0, memattn 0.1.0, commit abc1234"
    assert f"{place}, 2026-11-22: `{tmp_path.name}/2026-11-22.json`." in lines

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


def test_the_newest_whole_run_of_each_kind_and_device_is_taken(tmp_path):
    for name in (
        "2026-11-21",
        "2026-11-22",
        "2026-11-23-sd14_8x8",
        "2026-11-20-recording",
        "notes",
    ):
        for device in ("cpu-2-cores", "h200"):
            (tmp_path / device).mkdir(exist_ok=True)
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
    lines = section([run, paired]).splitlines()
    assert "| `sd14_64x64` | 0.006 | 0.60 | 0.15 | 0.0052 | 0.52 | 0.13 |" in lines
    assert "| `sd14_32x32` | 0.008 | 0.80 | 0.20 |  |  |  |" in lines
    assert "| geometric mean |  | **0.69** | 0.17 |  | **0.52** | 0.13 |" in lines
    met = "| scaled_dot_product_attention, 77 tokens | 0.63 | 0.80 | 0.70, worst 0.90 | met |"
    assert met in lines
    assert "| sd14 | whole denoiser | fp32 | 0.990 (0.981 to 1.004) | 1.01, met |" in lines
    assert "| sd14 | cross-attention layers | fp32 | 0.700 (0.680 to 0.710) | 0.95, met |" in lines
    memory = "1.23 MB more were in use at the peak; the record holds 1.10 MB."
    assert f"sd14, fp32: recorded, {memory}" in lines
    assert any(f"`{tmp_path.name}/2026-11-22.json`" in line for line in lines)

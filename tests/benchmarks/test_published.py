"""The README's table and the committed figures are what the committed measurements give."""

from pathlib import Path

import pytest

from memattn.benchmarks.figure import figure
from memattn.benchmarks.published import BEGIN, END, newest, section
from memattn.benchmarks.results import load, save
from memattn.benchmarks.tables import notes
from tests.benchmarks.runs import GPU, case, failing, gpu_kernels, joint, kernels, recording

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
    runs = {path: load(path) for path in committed()}
    kernels_of = {p.parent: run for p, run in runs.items() if run.timings and not run.is_joint}
    for picture in RESULTS.glob("*/*.svg"):
        expected = figure(kernels_of[picture.parent])
        assert picture.read_text(encoding="utf-8") == expected, "memattn bench --figure draws it"


def test_the_newest_usual_run_of_each_kind_and_device_is_taken(tmp_path):
    run = recording()
    busy = run._replace(machine={**run.machine, "busy": "other processes used 1.0 of its 2 cores"})
    for device in ("cpu-2-cores", "h200"):
        for name in ("2026-11-21", "2026-11-22", "2026-11-20-recording", "2026-11-19-joint"):
            save(run, tmp_path / device / f"{name}.json")
        save(busy, tmp_path / device / "2026-11-24.json")
        for name in ("sd14_8x8", "all", "recording-all", "joint-flux"):
            (tmp_path / device / f"2026-11-23-{name}.json").touch()
        (tmp_path / device / "notes.json").touch()
    (tmp_path / "readme.txt").touch()
    assert [path.relative_to(tmp_path).as_posix() for path in newest(tmp_path)] == [
        "cpu-2-cores/2026-11-22.json",
        "cpu-2-cores/2026-11-19-joint.json",
        "cpu-2-cores/2026-11-20-recording.json",
        "h200/2026-11-22.json",
        "h200/2026-11-19-joint.json",
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


def test_a_gpus_section_has_times_on_three_clocks_ratios_on_two_and_verdicts(tmp_path):
    path = tmp_path / "h200" / "2026-11-23.json"
    run = gpu_kernels(
        case("sd14_64x64", "bf16", ours=(6.0,) * 3),
        case("sana", "bf16", ours=(12.0,) * 3, keys=300),
    )
    untimed = [
        ("flash-colreduce", "", "it could not be imported"),
        ("sdpa_cudnn", "sana-bf16", "No available kernel"),
        ("sdpa_cudnn", "sana-fp16", "No available kernel"),
    ]
    silent = {"warm_us": (), "cold_us": (), "not_captured": "it waits for the host"}
    timings = tuple(
        row._replace(**silent) if row.provider == "eager_with_sums" else row for row in run.timings
    )
    machine = {**run.machine, "untimed": untimed, "node_us": 1.234}
    save(run._replace(machine=machine, timings=timings), path)
    text = section([path])
    lines = text.splitlines()
    assert "| sd14_64x64 | bf16 | 6.0 | 1.5 | 3.0 | 8.0 math | 4.0 math | 6.0 math |" in lines
    assert (
        "| sd14_64x64 | bf16 | 0.38, 0.50 | 0.15, 0.20 | 0.06, 0.08 | 0.60, 0.80 | 0.60 |" in lines
    )
    assert "| mean |  | 0.53, 0.71 | 0.21, 0.28 | 0.08, 0.11 | 0.85, 1.13 | 0.85 |" in lines
    fastest = "the fastest plain attention, 77 tokens"
    worst = "0.50 sd14_64x64 bf16"
    assert f"| {fastest} | cold cache | 0.50 | {worst} | 1.00 | met |" in lines
    assert "Could not be captured in a CUDA graph: eager_with_sums (it waits for the host)." in text
    assert "A kernel with nothing to do takes 1.2 us in such a graph on this machine, " in text
    assert "Not timed: flash-colreduce: it could not be imported." in lines
    assert "Not timed: sdpa_cudnn on sana-bf16, sana-fp16: No available kernel." in lines


def test_a_section_of_joint_attention_has_its_ratio_on_each_clock(tmp_path):
    path = tmp_path / "h200" / "2026-11-23-joint.json"
    save(joint(), path)
    lines = section([path]).splitlines()
    cells = "11.0 | 1.10 cudnn | 5.5 | 1.10 cudnn | 11.0 | 1.10 cudnn |"
    assert f"| sd3_medium | bf16 | {cells}" in lines
    without = "the fastest attention without"
    worst = "1.10 sd3_medium bf16"
    assert f"| {without} | call and wait | 1.10 | {worst} |  |  |" in lines
    assert f"| {without} | warm cache | 1.10 | {worst} | 1.06 | missed |" in lines


def test_what_a_gpu_s_host_had_to_do_is_said_once_a_denoiser():
    said = notes(recording(launches=(5300, 5100), waits=(9, 4)))
    assert len(said) == 2
    assert said[1] == (
        "sd14, fp32: a recorded run of one step launches 5300 kernels and copies, a stock one "
        "5100; its host waits 9 times for the GPU, the stock one's 4. The layers' time has in it "
        "what the GPU waited for the host."
    )


@pytest.mark.parametrize(
    ("run", "case_name"),
    [
        (kernels(case("sd14_8x8", "fp32", ours=(6.0,) * 3)), "sd14_8x8-fp32"),
        (gpu_kernels(case("sd14_8x8", "bf16", ours=(6.0,) * 3)), "sd14_8x8-bf16"),
        (joint(), "sd3_medium-bf16"),
        (recording(), "sd14-fp32"),
    ],
    ids=["kernels", "gpu", "joint", "recording"],
)
def test_what_failed_stands_beside_the_tables_even_if_nothing_else_is_left(
    tmp_path, run, case_name
):
    wrong = "AssertionError: got an error of 1, expected at most 0"
    failed = [("memattn_cpu", case_name, wrong), ("memattn_cpu_without", case_name, wrong)]
    save(failing(run, *failed), tmp_path / "run.json")
    sentence = f"Failed: memattn_cpu, memattn_cpu_without on {case_name}: {wrong}."
    assert sentence in section([tmp_path / "run.json"]).splitlines()


def test_a_gpus_layers_are_timed_with_the_gaps_between_them_and_say_so(tmp_path):
    run = recording(launches=(5300, 5100), waits=(9, 4))
    save(run._replace(machine={**GPU, "limits": {}}), tmp_path / "run.json")
    lines = section([tmp_path / "run.json"]).splitlines()
    layers = "cross-attention layers and gaps"
    assert f"| sd14 | {layers} | fp32 | 0.700 (0.680-0.710) | 0.95, met |" in lines
    assert "| sd14 | whole denoiser | fp32 | 0.990 (0.981-1.004) | 1.01, met |" in lines

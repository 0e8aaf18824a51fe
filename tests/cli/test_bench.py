import importlib.util
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from memattn import _env
from memattn.benchmarks import busy, session
from memattn.benchmarks.cases import Case
from memattn.benchmarks.machine import folder_name
from memattn.benchmarks.providers import providers
from memattn.benchmarks.published import newest
from memattn.benchmarks.results import load, save
from memattn.benchmarks.shapes import SHAPES
from memattn.cli.main import main
from memattn.errors import MemattnError
from tests.benchmarks.runs import case, gpu_kernels, joint, kernels, recording


@pytest.fixture
def idle(monkeypatch):
    monkeypatch.setattr(busy, "why_busy", lambda device, **_: None)


@pytest.fixture
def untimed(monkeypatch):
    """A run that comes to timing has failed the test."""

    def run(suite, options):
        raise AssertionError(f"{suite} was run with {options}")

    monkeypatch.setattr(session, "run", run)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "saved.json"
    save(kernels(case("sd14_64x64", "fp32", ours=(6.0,) * 3)), path)
    return path


@pytest.mark.slow
def test_a_small_layer_is_timed_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing")  # which is another project's business
    program = "import sys; from memattn.cli.main import main; sys.exit(main())"
    arguments = ["bench", "--only", "sd14_8x8", "--device", "cpu", "--anyway", "--save", tmp_path]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "2/2" in done.stderr
    (path,) = tmp_path.glob("*/*.json")
    assert path.name.endswith("-sd14_8x8.json")
    assert path.parent.name.startswith("cpu-")
    results = load(path)
    assert {timing.shape for timing in results.timings} == {"sd14_8x8"}
    assert {timing.dtype for timing in results.timings} == {"fp32", "bf16"}
    names = [timing.provider for timing in results.timings if timing.dtype == "fp32"]
    (eight_by_eight,) = (shape for shape in SHAPES if shape.name == "sd14_8x8")
    assert names == [each.name for each in providers(Case(eight_by_eight, "fp32", "cpu"))]
    assert all(len(timing.turns_us) == 8 for timing in results.timings)
    assert min(results.machine["limits"].values()) > 1e6
    assert "torch's attention, 77 tokens" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 100
    assert [p.name for p in tmp_path.iterdir()] == [path.parent.name]  # nothing else is left


WRONG = """
from memattn.benchmarks import providers

def wrong(query, key, value):
    answer = sdpa(query, key, value)
    return answer._replace(output=answer.output + 0.001)

sdpa = providers.SDPA.call
providers.SUMS += (providers.Provider("planted", KIND, wrong),)
"""


@pytest.mark.slow
def test_a_wrong_result_of_memattn_ends_the_run(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(WRONG.replace("KIND", "'without statistics'"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ["--device", "cpu", "--only", "sd14_8x8", "-p", "planted", "-k", "planted or math"]
    with pytest.raises(MemattnError) as raised:
        session.run(session.KERNELS, options)
    error = str(raised.value)
    assert error.startswith("the benchmarks failed: FAILED ")
    assert "test_cross_attention[sd14_8x8-fp32-planted] - AssertionError: planted, output" in error
    assert "sdpa_math" not in error
    assert "bf16" not in error  # which was not waited for


@pytest.mark.slow
def test_a_wrong_result_of_a_rival_is_told_with_the_others_times(tmp_path, monkeypatch):
    (tmp_path / "planted.py").write_text(WRONG.replace("KIND", "'plain'"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ["--device", "cpu", "--only", "sd14_8x8", "-p", "planted", "-k", "planted or math"]
    results = session.run(session.KERNELS, options)
    # 0.001 is less than what bfloat16 rounds away
    timed = {(timing.provider, timing.dtype) for timing in results.timings}
    assert timed == {("sdpa_math", "fp32"), ("sdpa_math", "bf16"), ("planted", "bf16")}
    ((provider, case_name, reason),) = results.machine["untimed"]
    assert (provider, case_name) == ("planted", "sd14_8x8-fp32")
    assert reason.startswith("planted, output: got an error of 1.0")


SMALL = """
from memattn.benchmarks import cases

small = cases.JOINT_SHAPES[0]._replace(heads=2, queries=90, keys=90, text=13)
cases._USUAL_JOINT_SHAPES["cpu"] = (small,)
"""


@pytest.mark.slow
def test_a_small_joint_layer_is_timed_end_to_end(tmp_path, monkeypatch, capsys):
    (tmp_path / "small.py").write_text(SMALL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    results = session.run(session.JOINT, ["--device", "cpu", "-p", "small"])
    assert results.is_joint
    ours, *plain = (timing.provider for timing in results.timings)
    assert ours.endswith("_on_flash")
    assert plain == ["sdpa", "sdpa_flash"]
    save(results, tmp_path / "run.json")
    assert main(["bench", str(tmp_path / "run.json")]) == 0
    assert "the fastest attention without" in capsys.readouterr().out


SHORT = """
from functools import partial
from memattn.benchmarks import denoisers

denoisers.packaged_testbed = partial(denoisers.packaged_testbed, steps=1)
"""


@pytest.mark.slow
def test_a_short_recording_is_timed_end_to_end(tmp_path, monkeypatch):
    (tmp_path / "short.py").write_text(SHORT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ["--device", "cpu", "-p", "short", "-k", "testbed"]
    results = session.run(session.RECORDING, options)
    assert {pair.dtype for pair in results.paired} == {"fp32"}
    assert {pair.pairs for pair in results.paired} == {16}
    assert len({pair.what for pair in results.paired}) == 4
    assert results.paired[0].extra_peak_bytes > 0
    assert all(pair.ratio_low <= pair.ratio <= pair.ratio_high for pair in results.paired)
    save(results, tmp_path / "run.json")
    assert main(["bench", str(tmp_path / "run.json")]) == 0


BUSY = "other processes used 1.9 of its 2 cores"


def test_a_busy_machine_is_refused(tmp_path, monkeypatch, capsys, untimed):
    monkeypatch.setattr(busy, "why_busy", lambda device: BUSY)
    assert main(["bench", "--save", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "memattn bench: this machine is busy: other processes used 1.9 of its 2 cores, and times "
        "would be theirs as well; wait, or time all the same with --anyway.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("before", "after", "option"), [(BUSY, None, ["--anyway"]), (None, BUSY, [])]
)
def test_times_of_a_busy_machine_say_so(tmp_path, monkeypatch, capsys, before, after, option):
    run = kernels(case("sd14_64x64", "fp32", ours=(6.0,) * 3))
    said = iter([before, after])
    monkeypatch.setattr(busy, "why_busy", lambda device, **_: next(said))
    monkeypatch.setattr(session, "run", lambda suite, options: run)
    assert main(["bench", "--device", "cpu", "--save", str(tmp_path), *option]) == 0
    out = capsys.readouterr().out
    assert out.startswith("The machine was busy, and these times are not only memattn's: other ")
    assert "0.60 (0.60-0.60)" in out
    (path,) = tmp_path.glob("*/*.json")
    assert load(path).machine["busy"] == BUSY
    assert newest(tmp_path) == []


def test_another_backend_than_autos_is_not_timed(monkeypatch, capsys, untimed):
    monkeypatch.setattr(_env, "BACKEND", "reference")
    assert main(["bench"]) == 2
    assert "got MEMATTN_BACKEND=reference, expected auto: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "suite", "options"),
    [
        ([], "bench_cross_attention.py", []),
        (["--joint"], "bench_column_statistics.py", []),
        (["--all", "--only", "sana"], "bench_cross_attention.py", ["--every", "--only", "sana"]),
        (["--recording", "--all"], "bench_recording.py", ["--every"]),
    ],
)
def test_options_reach_the_suite(monkeypatch, idle, arguments, suite, options):
    asked = []
    run = recording() if "--recording" in arguments else kernels(case("a", "fp32", ours=(1.0,) * 3))
    monkeypatch.setattr(session, "run", lambda *given: asked.append(given) or run)
    assert main(["bench", "--device", "cpu", *arguments]) == 0
    assert asked == [(suite, ["--device", "cpu", *options])]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], ""),
        (["--recording"], "-recording"),
        (["--joint", "--only", "sd3"], "-joint-sd3"),
        (["--only", "sd14"], "-sd14"),
        (["--recording", "--all"], "-recording-all"),
    ],
)
def test_the_files_name_says_what_was_run(tmp_path, monkeypatch, idle, arguments, name):
    run = recording() if "--recording" in arguments else kernels(case("a", "fp32", ours=(1.0,) * 3))
    monkeypatch.setattr(session, "run", lambda suite, options: run)
    arguments = ["bench", "--device", "cpu", "--save", str(tmp_path), *arguments]
    assert main(arguments) == 0
    (path,) = tmp_path.glob("cpu-*/*.json")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d{name}", path.stem)
    assert load(path) == run


def test_a_file_is_never_replaced(tmp_path, monkeypatch, capsys, idle):
    run = recording()
    monkeypatch.setattr(session, "run", lambda suite, options: run)
    arguments = ["bench", "--recording", "--device", "cpu", "--save", str(tmp_path)]
    assert main(arguments) == 0
    monkeypatch.setattr(session, "run", lambda suite, options: pytest.fail("was timed"))
    assert main(arguments) == 2
    assert "is there already, and is not replaced: move or remove it." in capsys.readouterr().err


def test_the_folder_that_is_written_is_looked_at_before_timing(tmp_path, capsys, untimed, idle):
    (tmp_path / folder_name("cpu")).touch()
    assert main(["bench", "--device", "cpu", "--save", str(tmp_path)]) == 2
    assert f"{folder_name('cpu')} is a file, expected a folder." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "flux"], "got --only flux, expected part of one of sd14_64x64, sd14_32x32, "),
        (["--only", "sana"], "got --only sana, expected part of one of sd14_64x64, sd14_32x32, "),
        (["--recording", "--only", "sd14"], "got --only with --recording, expected one of them."),
        (["--recording", "--joint"], "got --joint with --recording, expected one of them."),
        (["--joint", "--only", "sd14"], "got --only sd14, expected part of one of sd3_medium."),
    ],
)
def test_what_cannot_be_timed_is_refused_before_the_machine_is_looked_at(
    monkeypatch, capsys, untimed, arguments, sentence
):
    monkeypatch.setattr(busy, "why_busy", lambda device: pytest.fail("was asked"))
    assert main(["bench", "--device", "cpu", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"memattn bench: {sentence}")


def test_a_missing_pytest_benchmark_is_named_with_the_extra(monkeypatch, capsys, untimed):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "pytest_benchmark" else found(n)
    )
    assert main(["bench"]) == 2
    assert capsys.readouterr().err == (
        "memattn bench: the benchmarks run in pytest-benchmark, which is not installed here: "
        "pip install 'memattn[bench]'.\n"
    )


def test_save_without_a_folder_needs_a_checkout(tmp_path, monkeypatch, capsys, untimed):
    from memattn.benchmarks import published

    monkeypatch.setattr(published, "RESULTS", tmp_path / "site-packages" / "results")
    assert main(["bench", "--save"]) == 2
    assert capsys.readouterr().err == (
        "memattn bench: got --save without a folder, expected one outside a checkout.\n"
    )


def test_saved_results_are_shown_again(saved, capsys):
    assert main(["bench", str(saved)]) == 0
    out = capsys.readouterr().out
    assert "sd14_64x64" in out
    assert "0.60 (0.60-0.60)" in out
    assert "0.75 math" in out
    assert "..." not in out  # nothing was cut
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize(
    "run",
    [gpu_kernels(case("pixart_sigma", "bf16", ours=(6.0,) * 3)), joint()],
    ids=["gpu", "joint"],
)
def test_a_gpus_tables_fit_the_terminal(tmp_path, capsys, run):
    save(run, tmp_path / "run.json")
    assert main(["bench", str(tmp_path / "run.json")]) == 0
    out = capsys.readouterr().out
    assert "cold cache" in out
    assert "..." not in out  # nothing was cut
    assert max(map(len, out.splitlines())) <= 100


def test_what_cannot_be_printed_was_saved(tmp_path, monkeypatch, idle):
    run = kernels(case("a", "fp32", ours=(1.0,) * 3)[:1])
    monkeypatch.setattr(session, "run", lambda suite, options: run)
    assert main(["bench", "--device", "cpu", "--save", str(tmp_path)]) == 2
    (path,) = tmp_path.glob("*/*.json")
    assert load(path) == run


def test_saved_paired_ratios_are_shown_with_their_target(tmp_path, capsys):
    save(recording(high=1.02), tmp_path / "recording.json")
    assert main(["bench", str(tmp_path / "recording.json")]) == 0
    out = capsys.readouterr().out
    assert "0.990 (0.981-1.020)" in out
    assert "1.01, missed" in out
    assert "the record holds 1.10 MB." in " ".join(out.split())


def test_saved_results_are_drawn_and_written_as_markdown(saved, tmp_path, capsys):
    figure = tmp_path / "figure.svg"
    assert main(["bench", str(saved), "--figure", str(figure), "--markdown"]) == 0
    assert ET.parse(figure).getroot().tag.endswith("svg")
    assert "| sd14_64x64 | fp32 | 6 | 0.60 (0.60-0.60) | 0.75 math |" in capsys.readouterr().out


def test_two_runs_make_no_figure(saved, tmp_path, capsys):
    assert main(["bench", str(saved), str(saved), "--figure", str(tmp_path / "figure.svg")]) == 2
    assert "got 2 runs of the kernels to draw, expected one file." in capsys.readouterr().err
    assert not (tmp_path / "figure.svg").exists()


def test_timing_options_do_not_go_with_saved_results(saved, capsys):
    assert main(["bench", str(saved), "--anyway"]) == 2
    assert "got --anyway with saved results, expected it without." in capsys.readouterr().err


def test_a_file_that_is_no_run_is_one_sentence(tmp_path, capsys):
    (tmp_path / "other.json").write_text(json.dumps({"a": 1}))
    assert main(["bench", str(tmp_path / "other.json")]) == 2
    assert "expected a file that `memattn bench --save` wrote" in capsys.readouterr().err

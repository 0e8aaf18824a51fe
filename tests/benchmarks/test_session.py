"""A run of a suite in a process of its own: what fails is told, and what does not is kept."""

import pytest

from memattn.benchmarks import busy, session
from memattn.benchmarks.results import load
from memattn.cli.main import main
from memattn.errors import MemattnError
from tests.benchmarks.runs import case, kernels

OPTIONS = ["--device", "cpu", "--only", "sd14_8x8"]
PLANTED = """
from memattn.benchmarks import limits, providers

def fails(query, key, value):
    if query.dtype.itemsize == 4:
        raise RuntimeError("no kernel image\\nand more")
    return providers.SDPA.call(query, key, value)

providers.SUMS += (providers.Provider("planted", "plain", fails),)
limits.limits = lambda device: {"copy": 1e10, "fp32": 1e11, "bf16": 1e11}
"""


@pytest.fixture
def planted(tmp_path, monkeypatch):
    """A rival that fails in float32; the name of its plugin."""
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "planted"


@pytest.mark.slow
def test_what_fails_costs_nobody_elses_times(tmp_path, monkeypatch, planted):
    options = [*OPTIONS, "-p", planted, "-k", "planted or math"]
    with pytest.raises(session.BenchmarksFailedError) as raised:
        session.run(session.KERNELS, options)
    assert "sd14_8x8-fp32-planted] - RuntimeError: no kernel image" in str(raised.value)
    results = raised.value.results
    timed = {(timing.provider, timing.dtype) for timing in results.timings}
    assert timed == {("sdpa_math", "fp32"), ("sdpa_math", "bf16"), ("planted", "bf16")}
    failed = [["planted", "sd14_8x8-fp32", "RuntimeError: no kernel image"]]
    assert results.machine["failed"] == failed
    assert results.machine["limits"]["copy"] == 1e10


def test_the_command_saves_shows_and_then_says_what_failed(tmp_path, monkeypatch, capsys):
    run = kernels(case("sd14_64x64", "fp32", ours=(6.0,) * 3))
    failed = ["planted", "sd14_64x64-fp32", "RuntimeError: no kernel image"]
    run = run._replace(machine={**run.machine, "failed": [failed]})

    def fail(suite, options):
        raise session.BenchmarksFailedError("the benchmarks failed: FAILED planted", run)

    monkeypatch.setattr(busy, "why_busy", lambda device, **_: None)
    monkeypatch.setattr(session, "run", fail)
    assert main(["bench", "--device", "cpu", "--save", str(tmp_path)]) == 2
    out, error = capsys.readouterr()
    assert "0.60 (0.60-0.60)" in out
    sentence = "Failed: planted on sd14_64x64-fp32: RuntimeError: no kernel image."
    assert sentence in " ".join(out.split())
    assert error == "memattn bench: the benchmarks failed: FAILED planted\n"
    (path,) = tmp_path.glob("*/*.json")
    assert load(path) == run


BROKEN = """
from memattn.benchmarks import arms, denoisers

built = []

def broken():
    built.append(1)
    if len(built) > 1:
        raise RuntimeError("was built twice")
    raise RuntimeError("out of memory")

denoisers.packaged_testbed = broken
"""


@pytest.mark.slow
def test_a_denoiser_that_fails_is_built_once_and_told_for_each_comparison(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ["--device", "cpu", "-p", "broken", "-k", "testbed"]
    with pytest.raises(MemattnError, match=r"^nothing was timed: FAILED ") as raised:
        session.run(session.RECORDING, options)
    assert str(raised.value).count("RuntimeError: out of memory") == 4
    assert "was built twice" not in str(raised.value)

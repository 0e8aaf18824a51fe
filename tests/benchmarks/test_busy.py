import subprocess
import sys
from types import SimpleNamespace

from memattn.benchmarks import busy

BEFORE = """cpu  1000 0 500 9000 100 0 50 0 0 0
cpu0 500 0 250 4500 50 0 25 0 0 0
cpu1 500 0 250 4500 50 0 25 0 0 0
intr 12345
"""


def after(**spent):
    columns = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
    first = [500, 0, 250, 4500, 50, 0, 25, 0]
    first = [value + spent.get(name, 0) for name, value in zip(columns, first, strict=True)]
    return BEFORE.replace("cpu0 500 0 250 4500 50 0 25 0", f"cpu0 {' '.join(map(str, first))}")


BOTH = {0, 1}


def test_cores_in_use_are_counted_from_two_readings():
    assert busy.cores_used(BEFORE, after(idle=200), BOTH) == 0.0
    assert busy.cores_used(BEFORE, after(idle=150, iowait=50), BOTH) == 0.0
    assert busy.cores_used(BEFORE, after(user=50, idle=150), BOTH) == 0.5
    assert busy.cores_used(BEFORE, after(nice=100, idle=100), BOTH) == 1.0
    assert busy.cores_used(BEFORE, after(steal=200), BOTH) == 2.0


def test_only_our_own_cores_count():
    readings = BEFORE, after(user=100).replace("cpu1 500 0 250 4500", "cpu1 500 0 250 4600")
    assert busy.cores_used(*readings, {0}) == 1.0
    assert busy.cores_used(*readings, {1}) == 0.0


def test_two_equal_readings_are_no_division_by_zero():
    assert busy.cores_used(BEFORE, BEFORE, BOTH) == 2.0


def test_a_machine_that_computes_is_busy():
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        reason = busy.why_busy("cpu")
    finally:
        spinning.kill()
        spinning.wait()
    assert reason is not None
    assert reason.startswith("other processes used ")


def test_an_idle_machine_is_not_busy(monkeypatch, tmp_path):
    monkeypatch.setattr(busy.os, "sched_getaffinity", lambda process: BOTH)
    readings = tmp_path / "stat"
    monkeypatch.setattr(busy, "_STAT", readings)
    readings.write_text(BEFORE)
    monkeypatch.setattr(busy.time, "sleep", lambda seconds: readings.write_text(after(idle=200)))
    assert busy.why_busy("cpu") is None
    readings.write_text(BEFORE)
    monkeypatch.setattr(
        busy.time, "sleep", lambda seconds: readings.write_text(after(idle=100, user=300))
    )
    assert busy.why_busy("cpu") == (
        f"other processes used 1.5 of its {busy.cores()} cores over the last second"
    )


def test_a_large_machine_may_have_more_of_its_own_work(monkeypatch, tmp_path):
    monkeypatch.setattr(busy, "_STAT", tmp_path / "missing")
    monkeypatch.setattr(busy, "cores", lambda: 96)
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (1.9, 0.0, 0.0))
    assert busy.why_busy("cpu") is None
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (2.0, 0.0, 0.0))
    assert busy.why_busy("cpu") is not None


def test_where_there_is_no_proc_the_load_average_decides(monkeypatch, tmp_path):
    monkeypatch.setattr(busy, "_STAT", tmp_path / "missing")
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (0.1, 9.0, 9.0))
    assert busy.why_busy("cpu") is None
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (1.2, 0.0, 0.0))
    assert busy.why_busy("cpu") == (
        f"other processes used 1.2 of its {busy.cores()} cores over the last minute"
    )
    assert busy.why_busy("cpu", after_timing=True) is None


def test_a_gpu_that_does_not_say_what_it_does_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(
        busy.torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="a")
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert busy._busy_gpu().startswith("nvidia-smi does not say what its GPU is doing (")
    tool = tmp_path / "nvidia-smi"
    tool.touch(mode=0o755)
    for said, answer in [("[N/A]", "nvidia-smi does not say what"), ("97", "its GPU is 97 % in")]:
        tool.write_text(f"#!/bin/sh\necho '{said}'\n")
        assert busy._busy_gpu().startswith(answer)

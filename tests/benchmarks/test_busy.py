import subprocess
import sys

from memattn.benchmarks import busy

BEFORE = """cpu  1000 0 500 9000 100 0 50 0 0 0
cpu0 500 0 250 4500 50 0 25 0 0 0
cpu1 500 0 250 4500 50 0 25 0 0 0
intr 12345
"""


def after(**spent):
    columns = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
    total = [1000, 0, 500, 9000, 100, 0, 50, 0]
    total = [value + spent.get(name, 0) for name, value in zip(columns, total, strict=True)]
    return f"cpu  {' '.join(map(str, total))} 7 7\n" + BEFORE.partition("\n")[2]


def test_cores_in_use_are_counted_from_two_readings():
    assert busy.cores_used(BEFORE, after(idle=200)) == 0.0
    assert busy.cores_used(BEFORE, after(idle=150, iowait=50)) == 0.0
    assert busy.cores_used(BEFORE, after(user=50, idle=150)) == 0.5
    assert busy.cores_used(BEFORE, after(nice=100, idle=100)) == 1.0
    assert busy.cores_used(BEFORE, after(steal=200)) == 2.0


def test_two_equal_readings_are_no_division_by_zero():
    assert busy.cores_used(BEFORE, BEFORE) == 2.0


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


def test_where_there_is_no_proc_the_load_average_decides(monkeypatch, tmp_path):
    monkeypatch.setattr(busy, "_STAT", tmp_path / "missing")
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (0.1, 9.0, 9.0))
    assert busy.why_busy("cpu") is None
    monkeypatch.setattr(busy.os, "getloadavg", lambda: (1.2, 0.0, 0.0))
    assert busy.why_busy("cpu") == (
        f"other processes used 1.2 of its {busy.cores()} cores over the last minute"
    )

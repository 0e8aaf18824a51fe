from memattn.benchmarks.machine import facts


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts("cpu")["commit"] is None

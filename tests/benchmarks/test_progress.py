"""The bar moves once for all that is timed together."""

import pytest

from memattn.benchmarks import (
    bench_column_statistics,
    bench_cross_attention,
    bench_recording,
    progress,
)

SUITE = """
import pytest

@pytest.mark.parametrize("what", ["whole", "layers"])
@pytest.mark.parametrize("{name}", ["first", "second", "third"])
def test_all({name}, what):
    pass
"""


@pytest.mark.parametrize("name", ["subject", "case"])
def test_a_step_of_the_bar_is_what_is_timed_at_once(tmp_path, capsys, name):
    (tmp_path / "test_suite.py").write_text(SUITE.format(name=name))
    options = [
        "-c",
        "/dev/null",
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
    ]
    assert pytest.main([*options, "-s", str(tmp_path)], plugins=[progress]) == 0
    assert "3/3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "test",
    [
        bench_cross_attention.test_cross_attention,
        bench_column_statistics.test_column_statistics,
        bench_recording.test_recording,
    ],
)
def test_every_suite_has_such_a_parameter(test):
    assert set(progress.TOGETHER) & set(test.__annotations__)

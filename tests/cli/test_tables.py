import pytest

from memattn.cli.tables import WIDTH, duration, table


def test_cells_are_aligned_under_their_headers():
    assert table(
        ["name", "Noise\nMagnitude"], [["a", "1"], ["bcdef", "22"]], right=[1]
    ) == "\n".join(
        [
            "           Noise",
            "name   Magnitude",
            "-----  ---------",
            "a              1",
            "bcdef         22",
        ]
    )


def test_the_widest_column_gives_way_at_the_terminal_width():
    lines = table(["prompt", "verdict"], [["word " * 60, "ordinary"]]).splitlines()
    assert max(map(len, lines)) == WIDTH
    assert lines[-1].endswith("...  ordinary")


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="got a row of 1 cells, expected 2"):
        table(["a", "b"], [["1"]])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.7, "1 min 0 s"), (1425, "23 min 45 s"), (3600, "1 h 0 min 0 s")],
)
def test_a_duration_begins_with_its_largest_unit(seconds, text):
    assert duration(seconds) == text

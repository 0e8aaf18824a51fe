import argparse

import pytest

from memattn.cli.options import guidance_scale, positive_int, seed, share


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [(positive_int, "1", 1), (seed, "0", 0), (share, "0.01", 0.01), (guidance_scale, "7.5", 7.5)],
)
def test_what_an_option_takes(option, text, value):
    assert option(text) == value


@pytest.mark.parametrize(
    ("option", "wrong", "expected"),
    [
        (positive_int, ["0", "-1", "1.5", "many", ""], "a whole number from 1 up"),
        (seed, ["-1", "1.5", "many", ""], "a whole number from 0 up"),
        (share, ["0", "1", "nan", "1 %", ""], "a number between 0 and 1"),
        (guidance_scale, ["1", "inf", "nan", "much"], "more than 1: detectors need guidance"),
    ],
)
def test_what_it_refuses_is_one_sentence(option, wrong, expected):
    for text in wrong:
        with pytest.raises(argparse.ArgumentTypeError) as error:
            option(text)
        assert str(error.value) == f"got {text}, expected {expected}"

"""The Triton kernels without a GPU: every path in Triton's interpreter, against float64."""

import numpy
import pytest
from packaging.version import parse

from tests.kernels.programs import run_program

triton = pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(
    parse(triton.__version__) < parse("3.7") and parse(numpy.__version__) >= parse("2.4"),
    reason="the interpreter of Triton before 3.7 fails with NumPy from 2.4 on",
)


def test_every_path_is_within_the_error_budget_and_right_at_the_ends():
    run()


@pytest.mark.proof
def test_every_path_obeys_the_definition_wherever_its_inputs_lie():
    run("everything")


def run(*arguments):
    # The interpreter is numpy, and one thread is all it uses.
    run_program("interpreted", *arguments, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")

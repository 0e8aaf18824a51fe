"""The Triton kernels without a GPU: every path in Triton's interpreter, against float64."""

import pytest

from tests.kernels.programs import run_program

pytest.importorskip("triton", reason="triton is not installed")


def test_every_path_is_within_the_error_budget_and_right_at_the_ends():
    run()


@pytest.mark.proof
def test_every_path_obeys_the_definition_wherever_its_inputs_lie():
    run("everything")


def run(*arguments):
    # The interpreter is numpy, and one thread is all it uses.
    run_program("interpreted", *arguments, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")

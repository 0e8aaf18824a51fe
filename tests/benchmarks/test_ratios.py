import pytest

from memattn.benchmarks.ratios import clocks, joint_rows, ratio, rows
from memattn.errors import InputError
from tests.benchmarks.runs import case, failing, gpu_kernels, joint, kernels, timing


def test_a_ratio_is_taken_turn_by_turn():
    # The machine got three times slower in the second turn, for both.
    found = ratio([10.0, 30.0, 12.0], [20.0, 60.0, 20.0])
    assert found == pytest.approx((0.5, 0.5, 0.55))


def test_a_row_compares_with_the_right_rivals():
    (row,) = rows(kernels(case("sd14_64x64", "fp32", ours=(6.0, 6.0, 6.0))))
    assert row.timing.provider == "memattn_cpu"
    assert row.sdpa.median == pytest.approx(0.6)
    assert (row.fastest.median, row.fastest_name) == (pytest.approx(0.75), "sdpa_math")
    assert row.sums.median == pytest.approx(6 / 40)
    assert row.without.median == pytest.approx(1.2)
    assert row.limit.median == pytest.approx(1.2)


def test_a_case_without_a_rival_is_refused():
    alone = (timing("sd14_8x8", "fp32", "memattn_cpu", "with statistics", (1.0,) * 3),)
    with pytest.raises(InputError, match=r"^got sd14_8x8 in fp32 with only memattn_cpu,"):
        rows(kernels(alone))


OTHERS = (
    timing("a", "fp32", "sdpa", "plain", (50.0,) * 3),
    timing("a", "fp32", "sdpa_with_sums", "sums", (50.0,) * 3),
)


def test_the_fastest_rival_is_the_fastest_of_the_same_turns():
    # the median of math's turns is lower; beside ours in each turn, flash's is
    ours = (10.0, 20.0, 30.0)
    rivals = (
        timing("a", "fp32", "sdpa_flash", "plain", (9.5, 18.0, 28.0)),
        timing("a", "fp32", "sdpa_math", "plain", (12.0, 17.0, 33.0)),
    )
    (row,) = rows(kernels(case("a", "fp32", ours=ours)[:4] + rivals + OTHERS))
    assert row.fastest_name == "sdpa_flash"


def test_a_gpus_ratios_are_those_of_the_clock_that_is_asked_for():
    run = gpu_kernels(case("sd14_64x64", "bf16", ours=(6.0,) * 3))
    assert clocks(run) == ("eager", "warm", "cold")
    eager, warm, cold = (rows(run, clock)[0] for clock in clocks(run))
    assert [row.microseconds for row in (eager, warm, cold)] == [6.0, 1.5, 3.0]
    # ours 6, 1.5 and 3; the fastest plain 8, 4 and 6; without statistics 5, 2.5 and 3.75
    found = [row.fastest.median for row in (eager, warm, cold)]
    assert found == pytest.approx([6 / 8, 1.5 / 4, 3 / 6])
    found = [row.without.median for row in (eager, warm, cold)]
    assert found == pytest.approx([6 / 5, 1.5 / 2.5, 3 / 3.75])
    # the faster of two attentions with flash-colreduce
    assert cold.mass.median == pytest.approx(3 / 15)
    assert cold.limit.median == pytest.approx(3 / 5)


def test_without_a_gpu_there_is_one_clock_and_no_flash_colreduce():
    run = kernels(case("sd14_64x64", "fp32", ours=(6.0,) * 3))
    assert clocks(run) == ("eager",)
    assert rows(run)[0].mass is None


def test_who_was_not_captured_is_left_out_of_kernel_times():
    run = gpu_kernels(case("sd14_64x64", "bf16", ours=(6.0,) * 3))
    silent = {"warm_us": (), "cold_us": (), "not_captured": "it waits for the host"}
    timings = tuple(
        row._replace(**silent) if row.provider == "sdpa_math" else row for row in run.timings
    )
    (row,) = rows(run._replace(timings=timings), "warm")
    assert (row.fastest_name, row.fastest.median) == ("sdpa", pytest.approx(1.5 / 5))


def test_joint_attention_compares_the_fastest_with_the_fastest():
    (row,) = joint_rows(joint(), "warm")
    assert row.timing.provider == "memattn_triton_on_flash"
    assert (row.without_name, row.without.median) == ("sdpa_cudnn", pytest.approx(1.1))
    assert rows(joint()) == []
    assert joint_rows(kernels(case("a", "fp32", ours=(1.0,) * 3))) == []


def test_no_other_backend_stands_in_where_one_of_memattns_failed():
    cases = [case(name, "fp32", ours=(6.0,) * 3) for name in ("a", "b")]
    run = kernels(cases[0][1:], cases[1])  # without memattn_cpu, memattn_reference would be judged
    wrong = failing(run, ("memattn_cpu", "a-fp32", "AssertionError: wrong"))
    assert [row.timing.shape for row in rows(wrong)] == ["b"]

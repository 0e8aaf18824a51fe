import math

import pytest

from memattn.benchmarks.ratios import ratio, recording_verdict, rows, verdicts
from memattn.errors import InputError
from tests.benchmarks.runs import case, kernels, recording, timing


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


def judged(*cases):
    return {v.target.column: v for v in verdicts(rows(kernels(*cases)), "cpu")}


def test_a_target_needs_the_mean_and_the_worst_case():
    fast = case("sd14_64x64", "fp32", ours=(4.0,) * 3)
    slow = case("sd14_32x32", "bf16", ours=(8.9,) * 3)
    found = judged(fast, slow)["sdpa"]
    assert found.mean == pytest.approx(math.sqrt(0.4 * 0.89))
    assert (found.worst, found.worst_case) == (pytest.approx(0.89), "sd14_32x32 bf16")
    assert found.is_met
    slower = case("sd14_32x32", "bf16", ours=(9.1,) * 3)
    assert judged(fast, slower)["sdpa"].mean < 0.70
    assert not judged(fast, slower)["sdpa"].is_met  # one layer is above 0.90
    middling = case("sd14_32x32", "bf16", ours=(7.2,) * 3)
    assert not judged(middling)["sdpa"].is_met  # the mean is above 0.70


def test_a_target_is_about_the_layers_it_was_promised_for():
    known = case("sd14_64x64", "fp32", ours=(5.0,) * 3)
    long_prompt = case("sana", "fp32", ours=(50.0,) * 3, keys=300)
    small = case("sd14_8x8", "fp32", ours=(50.0,) * 3, size=4_999_999)
    found = judged(known, long_prompt)
    assert (found["sdpa"].worst, found["limit"].worst) == pytest.approx((0.5, 10.0))
    assert judged(known, small)["limit"].worst == pytest.approx(1.0)
    assert "limit" not in judged(small)


def test_the_fastest_plain_attention_is_shown_without_a_promise():
    found = judged(case("sd14_64x64", "fp32", ours=(8.8,) * 3))["fastest"]
    assert found.mean == pytest.approx(1.1)
    assert found.is_met is None
    assert verdicts(rows(kernels(case("a", "fp32", ours=(8.0,) * 3))), "cuda") == []


def test_recording_is_judged_by_the_upper_end_of_the_interval():
    whole, part = recording(high=1.009).paired
    assert recording_verdict(whole) == "1.01, met"
    assert recording_verdict(recording(high=1.011).paired[0]) == "1.01, missed"
    assert recording_verdict(part) == "0.95, met"
    assert recording_verdict(part._replace(what="constant text projections")) == ""

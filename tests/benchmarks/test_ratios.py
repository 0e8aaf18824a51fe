import math

import pytest

from memattn.benchmarks.ratios import geometric_mean, ratio, recording_verdict, rows, verdicts
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
    assert row.floor == pytest.approx(1.2)


def test_a_case_without_a_rival_is_refused():
    alone = (timing("sd14_8x8", "fp32", "memattn_cpu", "with statistics", (1.0,) * 3),)
    with pytest.raises(InputError, match=r"^got sd14_8x8 in fp32 with only memattn_cpu,"):
        rows(kernels(alone))


def test_means_are_geometric():
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


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
    assert (found["sdpa"].worst, found["floor"].worst) == pytest.approx((0.5, 10.0))
    assert judged(known, small)["floor"].worst == pytest.approx(1.0)
    assert "floor" not in judged(small)


def test_on_a_gpu_the_fastest_plain_attention_is_to_be_beaten():
    table = rows(kernels(case("sd14_64x64", "fp32", ours=(8.1,) * 3)))
    found = {verdict.target.column: verdict for verdict in verdicts(table, "cuda")}
    assert "sdpa" not in found
    assert not found["fastest"].is_met


def test_recording_is_judged_by_the_upper_end_of_the_interval():
    whole, part = recording(high=1.009).paired
    assert recording_verdict(whole) == "1.01, met"
    assert recording_verdict(recording(high=1.011).paired[0]) == "1.01, missed"
    assert recording_verdict(part) == "0.95, met"
    assert recording_verdict(part._replace(what="constant text projections")) == ""

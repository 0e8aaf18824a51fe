import dataclasses

import pytest
import torch

from memattn.detectors import DETECTORS, BrightEnding, LayerEntropy, NoiseMagnitude
from memattn.errors import RecordError
from memattn.evaluation.scoring import needed_fields, ordinary_range, score, score_readable
from tests.records import build_record

STRENGTHS = (0.1, 0.3, 0.5)


def test_score_names_every_detector():
    scores = score(build_record(STRENGTHS), (NoiseMagnitude(), LayerEntropy()))
    assert list(scores) == ["NoiseMagnitude", "LayerEntropy"]
    assert {len(values) for values in scores.values()} == {3}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_scores_of_a_record_on_a_gpu_are_on_the_cpu():
    record = build_record(STRENGTHS)
    moved = dataclasses.replace(
        record, gap_squared=record.gap_squared.cuda(), sigmas=record.sigmas.cuda()
    )
    scores = score(moved, [NoiseMagnitude()])["NoiseMagnitude"]
    assert scores.device.type == "cpu"
    assert ordinary_range(scores.cuda()) == ordinary_range(scores)


def test_needed_fields_are_those_of_the_detectors_and_no_others():
    assert needed_fields((LayerEntropy(),)) == ("token_mass",)
    assert needed_fields((BrightEnding(), NoiseMagnitude())) == ("gap_squared", "token_maps")
    assert "entropy" not in needed_fields(DETECTORS)


def test_a_detector_that_cannot_read_leaves_the_others_their_scores():
    record = build_record(STRENGTHS)
    detectors = (LayerEntropy(layer=99), NoiseMagnitude())
    scores, reasons = score_readable(record, detectors)
    assert torch.equal(scores["NoiseMagnitude"], NoiseMagnitude()(record))
    assert list(scores) == ["NoiseMagnitude"]
    assert list(reasons) == ["LayerEntropy(layer=99)"]
    assert "got layer 99" in reasons["LayerEntropy(layer=99)"]


def test_scores_that_are_not_finite_are_none():
    record = build_record(STRENGTHS)
    record.gap_squared[0, 1] = float("nan")
    scores, reasons = score_readable(record, (LayerEntropy(), NoiseMagnitude()))
    assert list(scores) == ["LayerEntropy"]
    assert reasons == {"NoiseMagnitude": "it gives scores that are not finite."}


def test_a_record_that_no_detector_can_read_is_refused():
    with pytest.raises(RecordError, match=r"no detector can read this model; .*: got layer 99"):
        score_readable(build_record(STRENGTHS), (LayerEntropy(layer=99),))


def test_the_ordinary_range_holds_nine_tenths():
    assert ordinary_range(torch.arange(101.0)) == pytest.approx((5.0, 95.0))

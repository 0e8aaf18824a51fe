"""What every detector promises, over the table of detectors and the table of records."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memattn import detectors
from memattn.detectors import (
    DETECTORS,
    AttentionEntropy,
    BrightEnding,
    LayerEntropy,
    NoiseMagnitude,
)
from memattn.errors import RecordError
from memattn.records import FIELDS
from tests.records import RECORDS, build_named, build_record

VARIANTS = (
    *DETECTORS,
    AttentionEntropy(second_term="absolute"),
    BrightEnding(calls="first"),
    LayerEntropy(layer="mid_block.attentions.0.transformer_blocks.0.attn2"),
    NoiseMagnitude(calls="all"),
    NoiseMagnitude(calls=1, space="output"),
    NoiseMagnitude(space="x0"),
)
STRENGTHS = (0.1, 0.3, 0.5, 0.7)

every_detector = pytest.mark.parametrize("detector", VARIANTS, ids=lambda d: d.name)
every_record = pytest.mark.parametrize("name", RECORDS)


@every_detector
@every_record
def test_scores_are_one_finite_float32_per_sample(detector, name):
    scores = detector(build_named(name, STRENGTHS))
    assert scores.shape == (4,)
    assert scores.dtype == torch.float32
    assert scores.isfinite().all()


@every_detector
@every_record
def test_more_memorized_scores_higher(detector, name):
    scores = detector(build_named(name, STRENGTHS))
    assert (scores.diff() > 0).all()


@every_detector
@every_record
def test_score_does_not_depend_on_the_batch(detector, name):
    record = build_named(name, STRENGTHS)
    together = detector(record)
    alone = torch.cat([detector(record.select([sample])) for sample in range(4)])
    assert torch.equal(alone, together)


@given(order=st.permutations(range(4)))
def test_permuting_samples_permutes_scores(order):
    record = build_record(STRENGTHS, prompt_lengths=[3, 4, 5, 9])
    for detector in VARIANTS:
        assert torch.equal(detector(record.select(order)), detector(record)[list(order)])


@every_detector
def test_citation_is_complete(detector):
    citation = detector.CITATION
    for field in ("title", "authors", "venue", "arxiv", "equation"):
        assert getattr(citation, field)
    assert citation.deviations
    assert all(sentence.endswith(".") for sentence in citation.deviations)


@every_detector
def test_needed_fields_suffice(detector):
    record = build_record(STRENGTHS)
    dropped = {name: None for name in FIELDS if name not in detector.needs}
    assert torch.equal(detector(dataclasses.replace(record, **dropped)), detector(record))


@every_detector
def test_each_needed_field_is_asked_for_by_name(detector):
    for name in detector.needs:
        record = dataclasses.replace(build_record(STRENGTHS), **{name: None})
        with pytest.raises(RecordError, match=f"holds no {name}.*record"):
            detector(record)


@every_detector
def test_one_call_detectors_score_a_stopped_run_as_the_whole_one(detector):
    record = build_record(STRENGTHS)
    stopped = record.truncate(1)
    if detector.one_call:
        assert torch.equal(detector(stopped), detector(record))
    else:
        with pytest.raises(
            RecordError, match=r"the first 1 of 5 denoiser calls|holds no token_maps"
        ):
            detector(stopped)


def test_names_tell_apart_what_scores_differently():
    names = [detector.name for detector in VARIANTS]
    assert len(set(names)) == len(names)
    assert NoiseMagnitude().name == "NoiseMagnitude"
    assert NoiseMagnitude(calls="all").name == "NoiseMagnitude(calls='all')"


def test_table_holds_every_exported_detector_once():
    exported = {name for name in detectors.__all__ if name not in ("DETECTORS", "Detector")}
    assert {type(detector).__name__ for detector in DETECTORS} == exported
    assert len(DETECTORS) == len(exported)
    assert sorted(detectors.__all__, key=lambda name: (not name.isupper(), name)) == list(
        detectors.__all__
    )

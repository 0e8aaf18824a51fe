import dataclasses
import re

import numpy as np
import pytest

from memattn.errors import CalibrationError
from memattn.report import (
    DetectorRow,
    Group,
    Interval,
    NearestImage,
    ReportPage,
    SampleCard,
    Score,
    TokenShare,
    write_report,
)
from memattn.report.html import render
from tests.report.markup import Tags

ATTACK = '<script>alert("1")</script> & "quotes"'


def picture(value=100):
    return np.full((8, 8, 3), value, np.uint8)


def sample(prompt="a fox", **changes):
    values = {
        "prompt": prompt,
        "group": "Verbatim",
        "seed": 7,
        "image": picture(),
        "scores": (Score("Loud", 5.0, 4.0), Score("Quiet", 1.0, 2.0)),
        "tokens": (
            TokenShare("", "begin", 0.1),
            TokenShare(prompt, "word", 0.2),
            TokenShare("", "end", 0.3),
            TokenShare("", "padding", 0.4),
        ),
        "mask": np.array([[0.01, 0.02], [0.03, 0.04]], np.float32),
        "nearest": NearestImage(picture(90), 0.05, 0.1, f"verbatim: {prompt}"),
        "true_mask": np.ones((8, 8), bool),
    }
    return SampleCard(**{**values, **changes})


def page(*cards, **changes):
    row = DetectorRow(
        name="Loud",
        reads="how loud it is",
        calls="1 call",
        threshold=4.0,
        ordinary=(1.0, 3.5),
        paper="Ren et al., ECCV 2024",
        arxiv="2403.11052",
        auroc=Interval(0.91, 0.85, 0.96),
        control=Interval(0.49, 0.4, 0.58),
        evidence="48 memorized, 500 ordinary prompts",
        hits=(40, 48),
        alarms=(5, 500),
    )
    values = {
        "version": "0.1.0",
        "title": "Title",
        "lead": "Lead.",
        "settings": (("Model", "testbed"),),
        "detectors": (row, dataclasses.replace(row, name="Quiet")),
        "cards": cards,
        "groups": (Group("Verbatim", "Shown often."), Group("Ordinary", "Never shown.")),
        "findings": ("One finding.",),
        "limits": ("One limit.",),
        "kept_pictures": 72,
    }
    return ReportPage(**{**values, **changes})


def test_prompts_are_escaped_everywhere():
    text = render(page(sample(ATTACK), title=ATTACK, findings=(ATTACK,), lead=ATTACK))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert all(tag != "script" for tag, _ in Tags(text).found)


def test_the_page_loads_nothing_from_anywhere():
    text = render(page(sample()))
    for tag, attributes in Tags(text).found:
        for name, value in attributes.items():
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name == "href":
                assert (tag, value) == ("a", "https://arxiv.org/abs/2403.11052")
        assert tag not in {"link", "script", "iframe", "object"}
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_of_a_sample_is_there_and_none_that_is_unknown():
    def alternatives(text):
        return [attributes["alt"] for tag, attributes in Tags(text).found if tag == "img"]

    assert alternatives(render(page(sample()))) == [
        "Generated image",
        "Nearest training image kept",
        "Bright-Ending mask over the generated image",
        "True mask over the generated image",
    ]
    text = render(page(sample(mask=None, nearest=None, true_mask=None)))
    assert alternatives(text) == ["Generated image"]
    assert "True mask" not in text


@pytest.mark.parametrize(
    ("scores", "badge"),
    [
        ((Score("Loud", 5.0, 4.0), Score("Quiet", 1.0, 2.0)), "memorized"),
        ((Score("Loud", 4.0, 4.0), Score("Quiet", 1.0, 2.0)), "not flagged"),
        ((Score("Loud", 5.0, None), Score("Quiet", 1.0, None)), "no verdict"),
    ],
)
def test_the_badge_is_the_verdict_of_the_scores(scores, badge):
    text = render(page(sample(scores=scores)))
    assert re.findall(r'<span class="badge [a-z-]+">([a-z ]+)</span>', text) == [badge]


def test_a_score_that_is_nan_gets_no_verdict():
    with pytest.raises(CalibrationError, match="got NaN as a score of Loud"):
        render(page(sample(scores=(Score("Loud", float("nan"), 4.0),))))


def test_the_truth_stands_beside_the_verdict():
    assert "copied by 3 of 4 seeds" in render(page(sample(copies=(3, 4))))
    text = render(page(sample()))
    assert "copied by" not in text
    assert "Copied by" not in text


def test_the_legend_says_among_what_the_nearest_image_was_looked_for():
    text = render(page(sample()))
    assert "nearest of the 72 pictures shown often or once" in text
    assert "bootstrap interval of no width" in text


@pytest.mark.parametrize(("distance", "is_copy"), [(0.09, True), (0.1, False)])
def test_a_distance_below_the_threshold_is_a_copy(distance, is_copy):
    text = render(page(sample(nearest=NearestImage(picture(), distance, 0.1, "verbatim"))))
    assert ('<span class="copy">a copy</span>' in text) == is_copy
    assert ("no copy" in text) != is_copy


def test_samples_stand_under_their_groups_and_empty_groups_are_left_out():
    text = render(page(sample("first"), sample("second")))
    assert text.index("<h3>Verbatim</h3>") < text.index("first") < text.index("second")
    assert "<h3>Ordinary</h3>" not in text


def test_without_measured_areas_the_table_has_no_such_column():
    row = DetectorRow("Loud", "", "1 call", None, None, "Ren et al.", "2403.11052")
    text = render(page(sample(scores=(Score("Loud", 1.0, None),)), detectors=(row,)))
    assert "AUROC" not in text


@pytest.mark.parametrize(
    ("card", "message"),
    [
        (sample(group="Elsewhere"), "groups .*Elsewhere"),
        (sample(scores=(Score("Strange", 1.0, None),)), "scores of .*Strange"),
    ],
)
def test_a_sample_the_page_does_not_list_is_refused(card, message):
    with pytest.raises(ValueError, match=message):
        render(page(card))


def test_a_written_report_has_the_page_and_one_png_per_sample(tmp_path):
    write_report(page(sample(), sample()), tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "images/000.png",
        "images/001.png",
        "index.html",
    ]

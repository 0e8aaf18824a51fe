"""The evaluation's page, from a real study of the testbed with few prompts and steps."""

import dataclasses
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import torch

from memattn import testbed
from memattn.detectors import AttentionEntropy, BrightEnding, LayerEntropy, NoiseMagnitude
from memattn.evaluation.bootstrap import Estimate
from memattn.evaluation.cases import Case, localisable
from memattn.evaluation.groups import GroupFigures
from memattn.evaluation.localisation import localisation
from memattn.evaluation.roc import Auroc
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.study import run_study
from memattn.report import testbed_truth as sentences
from memattn.report.areas import standing
from memattn.report.evaluation import evaluation_page, render_evaluation, write_evaluation
from memattn.report.gallery import _places, exhibits
from memattn.report.plots import figures_of
from memattn.report.plots.bright_ending import _means
from memattn.report.plots.comparison import Comparison
from memattn.report.plots.ladder import _ranks
from memattn.report.plots.noise_magnitude import noise_magnitude
from memattn.report.plots.roc_curves import roc_curves
from tests.report.markup import Tags

ATTACK = '<script>alert("$1$")</script> & "quotes"'
DETECTORS = (
    LayerEntropy(),
    AttentionEntropy(),
    NoiseMagnitude(calls="all"),
    BrightEnding(),
)


def cases():
    manifest = testbed.load_manifest()
    copied = [e for e in manifest.select("template") if e.is_memorized][:4]
    whole = [e for e in manifest.select("verbatim") if e.is_memorized][:2]
    once = manifest.select("seen_once")[:2]
    ordinary = manifest.select("ordinary")[:8]
    # Two prompts that were shown often and two shown once stand in for a ladder.
    chosen = [
        *((entry, "memorized", "template", entry.showings) for entry in copied),
        *((entry, "memorized", "ladder", 1024) for entry in whole),
        *((entry, "other", "ladder", 1) for entry in once),
        *((entry, "calibration", "ordinary", 0) for entry in ordinary[:3]),
        *((entry, "ordinary", "ordinary", 0) for entry in ordinary[3:]),
    ]
    return [
        Case(entry.prompt, seed, role, group, showings, entry.true_mask)
        for seed, (entry, role, group, showings) in enumerate(chosen)
    ]


@pytest.fixture(scope="module")
def study():
    return run_study(
        testbed.load_pipeline(),
        {"random weights": testbed.load_control},
        DETECTORS,
        cases(),
        RunSettings(steps=2),
        false_positive_rate=0.25,
        batch_size=8,
    )


@pytest.fixture(scope="module")
def pictures():
    shown = testbed.load_manifest().shown
    return {entry.prompt: entry.training_image for entry in shown}


def text_of(study, model="the testbed", truth=("Known.",), pictures=None, figures=()):
    return render_evaluation(evaluation_page(study, model, truth, pictures or {}, figures))


@pytest.fixture(scope="module")
def figures(study):
    return figures_of(study)


@pytest.fixture(scope="module")
def page(study, pictures, figures):
    return text_of(study, pictures=pictures, figures=figures)


def changed(study, **fields):
    """The study with other values in the first detector's result."""
    first = dataclasses.replace(study.detectors[0], **fields)
    return dataclasses.replace(study, detectors=(first, *study.detectors[1:]))


def cells(page):
    """First table's rows as lists of text, by the detector's name."""
    table = re.search(r"<tbody>(.*?)</tbody>", page, re.DOTALL).group(1)
    rows = {}
    for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL):
        texts = [
            " ".join(re.sub(r"<[^>]+>", " ", cell).split())
            for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)
        ]
        name = re.search(r'detector-name">([^<]+)<', row).group(1).replace("&#39;", "'")
        rows[name] = texts[1:]
    return rows


def test_the_table_has_the_studys_figures(study, page):
    rows = cells(page)
    assert list(rows) == [detector.name for detector in DETECTORS]
    for result in study.detectors:
        row = rows[result.detector.name]
        estimates = [
            *(result.auroc[part] for part in ("all", "template", "ladder")),
            None,
            result.f1,
            result.controls["random weights"],
        ]
        for text, estimate in zip(row, estimates, strict=False):
            if estimate is None:
                assert text == "too few"
            else:
                figures = [
                    f"{value:.2f}" for value in (estimate.value, estimate.low, estimate.high)
                ]
                assert text.startswith("{} {} to {}".format(*figures))
        assert row[-2] == str(result.calls)


def test_a_rate_that_could_be_measured_is_shown(study):
    text = text_of(changed(study, tpr=Estimate(0.321, 0.2, 0.4)))
    assert cells(text)["LayerEntropy"][3] == "0.32 0.20 to 0.40"


@pytest.mark.parametrize(
    ("area", "marked"),
    [((0.7, 0.6, 0.8), True), ((0.3, 0.2, 0.4), True), ((0.6, 0.4, 0.8), False)],
)
def test_a_control_whose_interval_misses_one_half_is_marked(study, area, marked):
    controls = {"random weights": Auroc(*area, 6, 5)}
    text = text_of(changed(study, controls=controls))
    assert ("misses 0.5" in cells(text)["LayerEntropy"][5]) == marked
    assert ("misses 0.5 for LayerEntropy, " in text) == marked


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1.5, 2.5), "1.5 to 2.5"),
        ((1.5, math.inf), "1.5 and above"),
        ((-math.inf, 2.5), "2.5 and below"),
        ((-math.inf, math.inf), "no bounds"),
    ],
)
def test_an_interval_of_a_threshold_may_have_no_ends(study, ends, text):
    page = text_of(changed(study, threshold_interval=ends))
    assert f'<small class="number">{text}</small>' in page


@pytest.mark.parametrize(
    ("area", "words"),
    [
        ((0.6, 0.4, 0.8), "Not told apart from chance, by the interval: LayerEntropy, 0.60"),
        ((0.3, 0.2, 0.4), "The wrong way round, by the interval: LayerEntropy, 0.30"),
    ],
)
def test_findings_say_no_more_than_the_interval(study, area, words):
    alone = changed(study, auroc={"all": Auroc(*area, 6, 5)})
    alone = dataclasses.replace(alone, detectors=alone.detectors[:1])
    page = evaluation_page(alone, "the testbed", (), {}, ())
    assert any(finding.startswith(words) for finding in page.findings)
    assert page.lead.startswith("1 detector on 6 memorized and 5 ordinary prompts")


def test_chance_of_both_figures_stands_beside_them(study):
    found = dataclasses.replace(
        study.localisers[0].model, chance_average_precision=0.123, chance_iou=0.456
    )
    one = (dataclasses.replace(study.localisers[0], model=found),)
    row = text_of(dataclasses.replace(study, localisers=one)).split("<td>model</td>")[1]
    shown = [" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row.split("</td>")[:4]]
    assert shown[0].startswith(f"{found.average_precision.value:.2f} ")
    assert shown[1] == "0.12"
    assert shown[2].startswith(f"{found.iou.value:.2f} ")
    assert shown[3] == "0.46"


def test_what_scrolls_has_a_name(page):
    regions = [found for _, found in Tags(page).found if found.get("tabindex") == "0"]
    assert len(regions) == 3 + 7
    assert all(found["role"] == "region" and found["aria-label"] for found in regions)


def test_figures_of_the_images_stand_group_by_group(study, page):
    groups = (
        GroupFigures("seen_once", "neither", 8, {"copies": 0.25, "<b>": 0.614}),
        GroupFigures("ordinary", "ordinary", 4, {"copies": 0.0, "<b>": 0.5}),
    )
    shown = evaluation_page(study, "the testbed", (), {}, (), groups, "Compare <i> with 0.5.")
    text = render_evaluation(shown)
    table = text.split("<h2>Generated images</h2>")[1].split("</section>")[0]
    found = [" ".join(row.split()) for row in re.sub(r"<[^>]+>", " ", table).split("\n")]
    words = " ".join(filter(None, found))
    assert "seen once neither 8 2 (25 %) 0.61 ordinary ordinary 4 0 (0.0 %) 0.50" in words
    assert "&lt;b&gt;" in table
    assert '<p class="note">Compare &lt;i&gt; with 0.5.</p>' in table
    assert "Generated images" not in page


def test_how_often_a_verdict_is_wrong_is_a_finding(study, page):
    assert f"<li>{study.calibration.joint_sentence}</li>" in page
    assert study.calibration.joint_sentence


def test_flagged_counts_of_every_group_are_there(study, page):
    for group in ("template", "ladder", "ordinary"):
        assert f'<th scope="col">{group}</th>' in page
    for flagged, count in study.detectors[0].flagged.values():
        assert f"{flagged} of {count}" in page


def test_the_page_is_whole_and_loads_nothing(page):
    found = Tags(page).found
    for tag, attributes in found:
        assert tag not in {"link", "script", "iframe", "object"}
        for name, value in attributes.items():
            if name == "src":
                assert value.startswith("data:image/png;base64,")
            if name == "href":
                assert value.startswith("https://arxiv.org/abs/")
            if name == "xlink:href":
                assert value.startswith(("#", "data:image/png;base64,"))
    ids = [attributes["id"] for _, attributes in found if "id" in attributes]
    assert len(ids) == len(set(ids))
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    assert "url(" not in style
    assert page.count("<style>") == 1


def test_what_users_name_is_escaped(study):
    scores = {ATTACK: study.control_scores["random weights"]}
    results = tuple(
        dataclasses.replace(result, controls={ATTACK: result.controls["random weights"]})
        for result in study.detectors
    )
    attacked = dataclasses.replace(study, control_scores=scores, detectors=results)
    text = text_of(attacked, ATTACK, (ATTACK,), figures=(roc_curves(attacked),))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 5


def test_a_written_page_is_the_same_every_time(study, page, pictures, figures, tmp_path):
    write_evaluation(
        study, tmp_path, model="the testbed", truth=("Known.",), training_pictures=pictures
    )
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == page
    written = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("figures/*")}
    assert written == {f"{plot.name}.svg": plot.file for plot in figures}


def test_every_figure_is_a_file_with_colours_of_its_own(figures, page):
    names = [plot.name for plot in figures]
    assert names == [
        "roc",
        "scores",
        "ladder",
        "layer-entropy",
        "attention-entropy",
        "noise-magnitude",
        "bright-ending",
    ]
    for plot in figures:
        root = ElementTree.fromstring(plot.file)
        assert root.find("{http://www.w3.org/2000/svg}title") is not None
        assert "--alarm: #a8361f" in plot.file
        assert "<text" in plot.file
        assert f'<figure class="plot-frame" id="{plot.name}">' in page


def test_no_figure_without_its_data(study):
    without = dataclasses.replace(study, runs=dataclasses.replace(study.runs, traces=None))
    text = text_of(without)
    assert [plot.name for plot in figures_of(without)] == ["roc", "scores", "ladder"]
    assert "The figures that explain single detectors are left out" in text
    few = dataclasses.replace(study, detectors=study.detectors[2:3])
    flat = tuple(dataclasses.replace(case, showings=None) for case in study.runs.cases)
    unknown = dataclasses.replace(few, runs=dataclasses.replace(study.runs, cases=flat))
    assert [plot.name for plot in figures_of(unknown)] == ["roc", "scores", "noise-magnitude"]


def test_the_map_of_layers_holds_the_detectors_own_area(study, figures):
    rows = Comparison.of(study)
    areas = rows.areas(study.runs.traces.entropy)
    assert areas.shape == (2, 16)
    expected = study.detectors[0].auroc["all"].value
    assert areas[0, 3] == pytest.approx(expected, abs=1e-6)
    assert f"{expected:.2f} at layer 3, call 0" in figures[3].caption


def test_captions_say_what_the_scores_say(study):
    turned = dataclasses.replace(
        study,
        runs=dataclasses.replace(
            study.runs,
            traces=dataclasses.replace(study.runs.traces, gap=-study.runs.traces.gap),
        ),
    )
    area = Comparison.of(study).auroc(study.runs.traces.gap[0])
    caption, other = (noise_magnitude(s).caption for s in (study, turned))
    assert f"AUROC {area.value:.2f}" in caption
    assert f"AUROC {1 - area.value:.2f}" in other


@pytest.mark.parametrize(
    ("area", "words"),
    [((0.7, 0.6, 0.8), "higher than"), ((0.3, 0.2, 0.4), "lower than"), ((0.6, 0.4, 0.8), "not")],
)
def test_a_difference_is_one_only_if_the_interval_says_so(area, words):
    assert standing(Auroc(*area, 5, 5)).startswith(words)


def test_ranks_are_shares_of_the_ordinary_below():
    scores = np.array([0.5, 3.0, 9.0, 1.0, 2.0, 3.0, 4.0])
    assert _ranks(scores, [0, 1, 2], [3, 4, 5, 6]).tolist() == [0, 62.5, 100]


def test_inside_and_outside_share_the_pixels_on_the_edge():
    truth = np.zeros((2, 4), bool)
    truth[:, :1] = True  # half of the mask's left pixel
    inside, outside = _means(torch.tensor([[4.0, 1.0]]), truth)
    assert (inside, outside) == pytest.approx((4.0, 2.0))


def test_the_gallery_goes_from_best_to_worst(study, pictures, page):
    shown = exhibits(study, "BrightEnding", pictures)
    rows = list(localisable(study.runs.cases))
    assert [study.runs.cases[row].group for row in rows] == ["template"] * 4
    precisions = [
        localisation(
            study.runs.masks["BrightEnding"][[row]], study.runs.cases[row].true_mask[None]
        ).average_precision.value
        for row in rows
    ]
    assert [exhibit.kind for exhibit in shown] == ["best", "median", "worst"]
    assert shown[0].average_precision == max(precisions)
    assert shown[-1].average_precision == min(precisions)
    for exhibit in shown:
        assert np.array_equal(exhibit.training_picture, pictures[exhibit.prompt])
        assert exhibit.prompt in page
    assert page.count('alt="Training picture"') == 3


@pytest.mark.parametrize(
    ("count", "places"),
    [
        (1, [0]),
        (2, [0, 1]),
        (3, [0, 1, 2]),
        (7, [0, 1, 2, 3, 5, 6]),
        (20, [0, 1, 9, 10, 18, 19]),
    ],
)
def test_no_example_is_shown_twice(count, places):
    assert [place for _, place in _places(count)] == places


def test_the_testbeds_truth_has_its_own_figures():
    manifest = testbed.load_manifest()
    text = " ".join(sentences.testbed_truth(manifest))
    verbatim = manifest.select("verbatim")
    copied = sum(entry.is_memorized for entry in verbatim)
    assert f"{copied} of {len(verbatim)} verbatim" in text
    assert f"such prompts, {len(manifest.false_copies)} in all, are left out" in text


def test_matplotlib_waits_for_the_first_figure():
    code = (
        "import sys, memattn, memattn.report, memattn.report.evaluation\n"
        "assert not any(name.startswith('matplotlib') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_scipys_statistics_wait_for_the_first_interval():
    code = "import sys, memattn, memattn.report\nassert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_figure_leaves_anything_behind(study, page):
    import matplotlib

    assert "matplotlib.pyplot" not in sys.modules
    assert matplotlib.rcParams["svg.fonttype"] == "path"

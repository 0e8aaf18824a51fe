"""What the figures draw and say, against values computed by hand or by another route."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from memattn.detectors import AttentionEntropy, BrightEnding, LayerEntropy, NoiseMagnitude
from memattn.evaluation.bootstrap import Estimate
from memattn.evaluation.cases import Case
from memattn.evaluation.localisation import localisation
from memattn.evaluation.roc import auroc
from memattn.evaluation.runs import Runs
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.study import DetectorResult, Study
from memattn.evaluation.traces import Traces
from memattn.report.gallery import exhibits
from memattn.report.plots import figures_of
from memattn.report.plots.comparison import layer_labels
from memattn.report.plots.ladder import has_ladder
from memattn.report.plots.roc_curves import roc_curves
from memattn.report.plots.style import MEMORIZED, ORDINARY, QUIET

CALLS, LAYERS = 5, ("down_blocks.0.attentions.0", "mid_block.attentions.0", "layer")
DETECTORS = (
    LayerEntropy(layer=1, call=2),
    AttentionEntropy(),
    NoiseMagnitude(calls="all"),
    BrightEnding(),
)
MEMORIZED_ROWS, OTHER_ROWS, ORDINARY_ROWS = [0, 1, 2, 3], [4, 5, 6], [7, 8, 9, 10, 11]
# Memorized; shown, not copied; ordinary; calibration.
SCORES = [5.0, 6.0, 1.0, 7.0, 2.0, 0.0, 3.0, 1.5, 2.5, 3.5, 4.5, 0.5, 9.0, 9.5]
CONTROL = (torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([2.0, 4.0, 6.0, 8.0, 10.0]))
ODD = "_odd control"  # matplotlib drops a name like this from a legend that it gathers itself


def cases():
    truth = np.zeros((8, 8), bool)
    truth[1:6, 1:7] = True
    kinds = [
        *(("memorized", "ladder", showings, None) for showings in (4, 4, 1)),
        ("memorized", "template", 64, truth),
        *(("other", "ladder", showings, None) for showings in (1, 1, 4)),
        *(("ordinary", "ordinary", 0, None),) * 5,
        *(("calibration", "ordinary", 0, None),) * 2,
    ]
    return tuple(
        Case(f"prompt {row}", row, role, group, showings, mask)
        for row, (role, group, showings, mask) in enumerate(kinds)
    )


def traces():
    generator = torch.Generator().manual_seed(3)

    def drawn(*shape):
        values = torch.rand(*shape, len(SCORES), generator=generator, dtype=torch.float64)
        values[..., MEMORIZED_ROWS] += 0.3 * torch.rand(*shape, 1, generator=generator)
        return values

    return Traces(
        layers=LAYERS,
        entropy=drawn(CALLS, 3),
        begin_share=drawn(CALLS, 3) / 2,
        total_entropy=drawn(CALLS),
        summary_entropy=drawn(CALLS),
        gap=drawn(CALLS),
        local_gap=drawn(CALLS),
        prompt_lengths=torch.tensor([5, 6, 7, 5] + [6] * 3 + [5, 6, 7, 8, 9] + [5] * 2),
    )


def result(detector, scores):
    area = auroc(scores[MEMORIZED_ROWS], scores[ORDINARY_ROWS])
    return DetectorResult(
        detector=detector,
        auroc={"all": area},
        tpr=None,
        f1=Estimate(0.5, 0.4, 0.6),
        threshold=4.75,
        threshold_interval=(4.25, 5.5),
        ordinary_range=(0.5, 4.5),
        flagged={"seen_once": (0, 2)},
        controls={},
        calls=1,
        seconds=1.0,
    )


@pytest.fixture(scope="module")
def study():
    scores = {
        detector.name: torch.tensor(SCORES).roll(shift * 3)
        for shift, detector in enumerate(DETECTORS)
    }
    masks = torch.rand(len(SCORES), 4, 4, generator=torch.Generator().manual_seed(1))
    return Study(
        calibration=None,  # no figure reads it
        runs=Runs(
            cases=cases(),
            scores=scores,
            masks={"BrightEnding": masks},
            images=(np.zeros((8, 8, 3), np.uint8),) * len(SCORES),
            traces=traces(),
            calls=CALLS,
            unreadable={},
        ),
        # It knows the first detector only, so that the last panel has no control.
        control_scores={ODD: {DETECTORS[0].name: CONTROL}},
        control_models={ODD: "0" * 64},
        detectors=tuple(result(detector, scores[detector.name]) for detector in DETECTORS),
        localisers=(),
        settings=RunSettings(steps=CALLS),
        sampled=len(SCORES),
        kept=0,
    )


@pytest.fixture(scope="module")
def plots(study):
    return {plot.name: plot for plot in figures_of(study)}


def painted(plot):
    figure = Figure(layout="constrained")
    plot.paint(figure)
    return figure


def lines(axes, color):
    return [line for line in axes.get_lines() if to_hex(line.get_color()) == color]


def dots(axes, color, axis=0):
    """Sorted x or y of all dots of a colour; a dot is a stroke from a point to itself."""
    found = []
    for line in lines(axes, color):
        values = line.get_xydata()
        if np.isnan(values).any():
            assert np.array_equal(values[::3], values[1::3])
            found.extend(values[::3, axis])
    return sorted(found)


def area_of(values):
    """AUROC by counting pairs."""
    values = np.asarray(values)
    pairs = values[MEMORIZED_ROWS][:, None] - values[ORDINARY_ROWS][None]
    return ((pairs > 0) + 0.5 * (pairs == 0)).mean()


def numbers(text):
    return [float(found) for found in re.findall(r"\d+\.\d+", text)]


def assert_bands(axes, values):
    """Lines are the groups' medians, bands their middle 80 %, in the groups' colours."""
    for color, rows in ((MEMORIZED, MEMORIZED_ROWS), (ORDINARY, ORDINARY_ROWS)):
        group = values[:, rows].numpy()
        (line,) = lines(axes, color)
        assert line.get_ydata() == pytest.approx(np.median(group, axis=1))
        (band,) = [patch for patch in axes.collections if to_hex(patch.get_facecolor()[0]) == color]
        corners = band.get_paths()[0].vertices
        for call in range(len(values)):
            here = corners[corners[:, 0] == call, 1]
            assert [here.min(), here.max()] == pytest.approx(np.quantile(group[call], [0.1, 0.9]))


def assert_areas(axes, values):
    (line,) = lines(axes, MEMORIZED)
    assert line.get_ydata() == pytest.approx([area_of(row) for row in values])


def furthest(values):
    areas = [area_of(row) for row in values]
    call = max(range(len(areas)), key=lambda index: abs(areas[index] - 0.5))
    return f"{call} has the AUROC furthest from 0.5 ({areas[call]:.2f})"


def test_roc_curves_are_the_groups_curves(plots):
    figure = painted(plots["roc"])
    first, *others = figure.axes
    (model,) = lines(first, MEMORIZED)
    # No ordinary score is above 5, so three of four memorized ones are found at the left end,
    # which stands for 0; the fourth is below four of the five.
    expected = [(0.1, 0), (0.1, 0.75), (0.8, 0.75), (0.8, 1), (1, 1)]
    assert model.get_xydata() == pytest.approx(np.array(expected))
    (control,) = lines(first, ORDINARY)
    expected = [(0.1, 0), (0.4, 0), (0.4, 0.25), (0.6, 0.25), (0.6, 0.5), (0.8, 0.5), (0.8, 0.75)]
    assert control.get_xydata() == pytest.approx(np.array([*expected, (1, 0.75), (1, 1)]))
    assert not any(lines(axes, ORDINARY) for axes in others)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["model", ODD]
    assert [to_hex(line.get_color()) for line in legend.get_lines()] == [MEMORIZED, ORDINARY]
    assert "mathdefault" not in plots["roc"].svg


def test_the_caption_speaks_of_controls_only_if_there_are_any(study, plots):
    assert "on the controls" in plots["roc"].caption
    assert "controls" not in roc_curves(dataclasses.replace(study, control_scores={})).caption


def test_scores_have_the_colour_of_their_role(plots):
    axes = painted(plots["scores"]).axes[0]
    for color, rows in (
        (MEMORIZED, MEMORIZED_ROWS),
        (ORDINARY, ORDINARY_ROWS),
        (QUIET, OTHER_ROWS),
    ):
        assert dots(axes, color) == sorted(SCORES[row] for row in rows)
    assert "red if it is memorized, blue if ordinary, grey if it belongs to neither" in (
        plots["scores"].caption
    )
    rows = [label.get_text() for label in axes.get_yticklabels()]
    template = [y for y in dots(axes, MEMORIZED, axis=1) if round(y) == rows.index("template")]
    assert len(template) == 1
    assert any(set(line.get_xdata()) == {4.75} for line in axes.get_lines())


def test_the_ladder_counts_copies(plots):
    copies, scores, *_ = painted(plots["ladder"]).axes
    # At one showing row 2 of three is a copy, at four rows 0 and 1 of three.
    assert [bar.get_height() for bar in copies.patches] == pytest.approx([100 / 3, 200 / 3])
    assert {to_hex(bar.get_facecolor()) for bar in copies.patches} == {MEMORIZED}
    assert dots(scores, MEMORIZED, axis=1) == pytest.approx([20, 100, 100])
    assert dots(scores, QUIET, axis=1) == pytest.approx([0, 40, 60])
    (medians,) = lines(scores, ORDINARY)
    assert medians.get_ydata() == pytest.approx([20, 100])
    caption = plots["ladder"].caption
    assert "From 1 to 4 showings copies go from 33 to 67 % of the prompts" in caption
    assert "for LayerEntropy(layer=1, call=2) from 20 to 100 %" in caption


def test_a_ladder_may_start_at_no_showings_and_needs_a_number(study):
    def with_showings(showings):
        changed = tuple(
            dataclasses.replace(case, showings=showings if case.group == "ladder" else None)
            for case in study.runs.cases
        )
        return dataclasses.replace(study, runs=dataclasses.replace(study.runs, cases=changed))

    plot = figures_of(with_showings(0))[2]
    assert [bar.get_height() for bar in painted(plot).axes[0].patches] == pytest.approx([50])
    assert not has_ladder(with_showings(None))


def test_the_map_of_entropies_is_red_where_memorized_is_higher(plots):
    left, right, *_ = painted(plots["layer-entropy"]).axes
    (image,) = left.get_images()
    entropy = traces().entropy.numpy()
    expected = [[area_of(entropy[call, layer]) for call in range(CALLS)] for layer in range(3)]
    assert np.array(image.get_array()) == pytest.approx(np.array(expected))
    (red, _, blue, _), (other_red, _, other_blue, _) = image.to_rgba(np.array([0.9, 0.1]))
    assert red > blue
    assert other_blue > other_red
    flat = np.array(expected)
    layer, call = np.unravel_index(np.abs(flat - 0.5).argmax(), flat.shape)
    names = ("down 0.0", "mid", "layer")
    caption = plots["layer-entropy"].caption
    assert f"{expected[1][2]:.2f} at layer 1, call 2" in caption
    assert f"{flat[layer, call]:.2f} at layer {layer} ({names[layer]}), call {call}" in caption
    assert f"({100 * (flat > 0.5).mean():.0f} % of the places)" in caption
    first = traces().begin_share[0].numpy()
    medians = {}
    for color, rows in ((MEMORIZED, MEMORIZED_ROWS), (ORDINARY, ORDINARY_ROWS)):
        (line,) = lines(right, color)
        medians[color] = np.median(first[:, rows], axis=1)
        assert line.get_xdata() == pytest.approx(medians[color])
        assert line.get_ydata().tolist() == [0, 1, 2]
    widest = np.abs(medians[MEMORIZED] - medians[ORDINARY]).argmax()
    assert (
        f"most at layer {widest}, {100 * medians[MEMORIZED][widest]:.1f} % for memorized and "
        f"{100 * medians[ORDINARY][widest]:.1f} % for ordinary prompts"
    ) in caption
    less = (medians[MEMORIZED] < medians[ORDINARY]).sum()
    assert f"give it less at {less} of 3 layers" in caption
    assert "the middle 80 % of the prompts" in caption


def test_the_terms_of_attention_entropy_have_their_own_areas(plots):
    first, second, third, fourth = painted(plots["attention-entropy"]).axes
    found = traces()
    assert_bands(first, found.total_entropy)
    assert_bands(second, found.summary_entropy)
    # A fifth of five calls is late: the last one.
    level = found.total_entropy[-1].numpy()
    change = (found.summary_entropy[-1] - found.summary_entropy[0]).numpy()
    areas = [area_of(values) for values in (level, change, level + change)]
    assert len({round(area, 2) for area in areas}) == 3
    shown = {
        label.get_text(): height
        for height, label in zip(third.get_yticks(), third.get_yticklabels(), strict=True)
    }
    marks = {
        line.get_ydata()[0]: line.get_xdata()[0]
        for line in lines(third, MEMORIZED)
        if len(line.get_xdata()) == 1
    }
    for name, area in zip(("late level of E", "late change of Eˢ", "score"), areas, strict=True):
        assert marks[shown[name]] == pytest.approx(area)
    caption = plots["attention-entropy"].caption
    said = re.findall(r"(\d\.\d\d) \(\d\.\d\d to \d\.\d\d\)", caption)
    assert said == [f"{area:.2f}" for area in areas]
    scores = level + change
    assert dots(fourth, MEMORIZED, axis=1) == pytest.approx(sorted(scores[MEMORIZED_ROWS]))
    assert dots(fourth, ORDINARY, axis=1) == pytest.approx(sorted(scores[ORDINARY_ROWS]))
    lengths, ordinary = [5, 6, 7, 8, 9], scores[ORDINARY_ROWS]
    assert f"prompt's length is {np.corrcoef(lengths, ordinary)[0, 1]:.2f}" in caption
    assert f"{ordinary[0]:.2f} at 5 tokens and {ordinary[-1]:.2f} at 9" in caption


def test_equal_scores_have_no_correlation_with_anything(study):
    flat = dataclasses.replace(
        study.runs.traces,
        total_entropy=torch.ones(CALLS, len(SCORES), dtype=torch.float64),
        summary_entropy=torch.zeros(CALLS, len(SCORES), dtype=torch.float64),
    )
    changed = dataclasses.replace(study, runs=dataclasses.replace(study.runs, traces=flat))
    caption = figures_of(changed)[4].caption
    assert "nan" not in caption
    assert "All ordinary prompts have the score 1.00" in caption


def test_the_gap_is_drawn_call_by_call(plots):
    left, right = painted(plots["noise-magnitude"]).axes
    gap = traces().gap
    assert_bands(left, gap)
    assert_areas(right, gap)
    caption = plots["noise-magnitude"].caption
    assert "bands hold the middle 80 % of the prompts" in caption
    assert f"AUROC {area_of(gap[0]):.2f} (" in caption
    assert f"theirs, {area_of(gap.mean(0)):.2f} (" in caption
    assert furthest(gap) in caption


def test_a_detector_that_ranks_the_wrong_way_round_tells_as_much(study):
    turned = dataclasses.replace(study.runs.traces, gap=-study.runs.traces.gap)
    changed = dataclasses.replace(study, runs=dataclasses.replace(study.runs, traces=turned))
    caption = next(plot for plot in figures_of(changed) if plot.name == "noise-magnitude").caption
    assert furthest(turned.gap) in caption


def test_one_call_is_compared_with_no_other(study):
    parts = study.runs.traces
    single = {
        name: getattr(parts, name)[:1]
        for name in ("entropy", "begin_share", "total_entropy", "summary_entropy", "gap")
    }
    short = dataclasses.replace(parts, **single, local_gap=parts.local_gap[:1])
    chosen = dataclasses.replace(study, detectors=study.detectors[2:])
    changed = dataclasses.replace(chosen, runs=dataclasses.replace(study.runs, traces=short))
    for plot in figures_of(changed)[3:]:
        assert "single calls" not in plot.caption


def test_the_local_gap_and_the_mask_inside_and_outside(study, plots):
    left, middle, right = painted(plots["bright-ending"]).axes
    gap = traces().local_gap
    assert_bands(left, gap)
    assert_areas(middle, gap)
    caption = plots["bright-ending"].caption
    assert f"ordinary ones, AUROC {area_of(gap.mean(0)):.2f} (" in caption
    assert area_of(gap.mean(0)) != pytest.approx(area_of(gap[0]), abs=0.01)
    assert furthest(gap) in caption
    truth = torch.from_numpy(study.runs.cases[3].true_mask)
    fine = study.runs.masks["BrightEnding"][3].double()
    fine = fine.repeat_interleave(2, 0).repeat_interleave(2, 1)
    inside, outside = float(fine[truth].mean()), float(fine[~truth].mean())
    assert dots(right, MEMORIZED) == pytest.approx([100 * outside])
    assert dots(right, MEMORIZED, axis=1) == pytest.approx([100 * inside])
    assert f"inside it is {inside / outside:.2f} times as bright" in caption
    assert f"{int(inside > outside)} have the brighter mask" in caption


def test_traces_are_drawn_for_the_detectors_that_they_show(study):
    def drawn(*detectors):
        results = tuple(
            dataclasses.replace(study.detectors[0], detector=detector) for detector in detectors
        )
        scores = {detector.name: torch.tensor(SCORES) for detector in detectors}
        masks = {detector.name: study.runs.masks["BrightEnding"] for detector in detectors}
        runs = dataclasses.replace(study.runs, scores=scores, masks=masks)
        changed = dataclasses.replace(study, detectors=results, runs=runs)
        return [plot.name for plot in figures_of(changed)][3:]

    assert drawn(NoiseMagnitude(), BrightEnding(calls=2)) == ["noise-magnitude", "bright-ending"]
    assert drawn(NoiseMagnitude(space="output"), BrightEnding(layers=("mid",))) == []


def test_the_gallerys_figures_are_those_at_the_pictures_resolution(study):
    (shown,) = exhibits(study, "BrightEnding", {})
    mask, truth = study.runs.masks["BrightEnding"][3:4], study.runs.cases[3].true_mask[None]
    found = localisation(mask, truth)
    assert found.iou.value != pytest.approx(found.native_iou.value, abs=0.01)
    assert shown.iou == pytest.approx(found.iou.value)
    assert shown.average_precision == pytest.approx(found.average_precision.value)
    assert shown.chance == pytest.approx(30 / 64)


def test_layers_have_short_names_that_differ():
    def block(place, number):
        return f"{place}.transformer_blocks.{number}.attn2"

    names = [
        block("down_blocks.1.attentions.0", 0),
        block("down_blocks.2.attentions.0", 0),
        block("down_blocks.2.attentions.0", 1),
        block("mid_block.attentions.0", 0),
        "text.3",
    ]
    assert layer_labels(names) == ["down 1.0", "down 2.0.0", "down 2.0.1", "mid", "text.3"]


def test_a_users_own_style_changes_no_figure(study, plots):
    import matplotlib

    with matplotlib.rc_context({"lines.linewidth": 9, "axes.grid": True, "xtick.bottom": False}):
        changed = [plot.svg for plot in figures_of(study)]
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert changed == [plot.svg for plot in plots.values()]

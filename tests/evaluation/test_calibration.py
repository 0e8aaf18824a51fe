import dataclasses
import json
import math
import re
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import memattn
from memattn.errors import CalibrationError
from memattn.evaluation.calibration import Calibration, JointRate, calibrate, model_hash
from memattn.evaluation.settings import RunSettings
from memattn.evaluation.thresholds import share_interval
from tests.pipelines import stable_diffusion

SETTINGS = RunSettings(steps=20, guidance_scale=7.5, height=64, width=64, scheduler="DDIM-1")
OTHER_MODEL = "b" * 64


def calibration_of(scores, rate=0.05):
    return calibrate(
        {"LayerEntropy": torch.as_tensor(scores)},
        model_hash="a" * 64,
        settings=SETTINGS,
        false_positive_rate=rate,
    )


@pytest.fixture
def calibration():
    return calibration_of(torch.arange(40.0))


@pytest.mark.parametrize(
    ("prompts", "rate", "threshold"),
    [(19, 0.05, 18), (39, 0.05, 37), (40, 0.05, 38), (99, 0.01, 98), (99, 0.29, 70)],
)
def test_threshold_is_the_conservative_order_statistic(prompts, rate, threshold):
    scores = torch.arange(float(prompts)).flip(0)
    assert calibration_of(scores, rate).thresholds == {"LayerEntropy": threshold}


@given(
    scores=st.lists(st.integers(0, 9), min_size=19, max_size=60),
    rate=st.sampled_from([0.05, 0.1, 0.29, 0.5]),
)
def test_at_most_the_wanted_share_is_flagged(scores, rate):
    calibration = calibration_of(torch.tensor(scores, dtype=torch.float32), rate)
    flagged = sum(calibration.verdict("LayerEntropy", score) for score in scores)
    assert flagged <= rate * len(scores)


@pytest.mark.parametrize(
    ("scores", "interval"),
    [
        (torch.arange(500.0), (489, 499)),
        (torch.arange(500.0).double().flip(0), (489, 499)),
        (torch.arange(99.0), (95, math.inf)),
    ],
)
def test_every_threshold_has_its_interval(scores, interval):
    calibration = calibration_of(scores, 0.01)
    assert calibration.intervals == {"LayerEntropy": interval}
    low, high = interval
    assert low <= calibration.thresholds["LayerEntropy"] <= high


def test_new_prompts_are_flagged_at_most_as_often_as_wanted():
    generator = torch.Generator().manual_seed(0)
    rates = []
    for _ in range(200):
        calibration = calibration_of(torch.randn(39, generator=generator), 0.05)
        new = torch.randn(200, generator=generator)
        rates.append((new > calibration.thresholds["LayerEntropy"]).float().mean())
    assert 0.03 < torch.stack(rates).mean() < 0.06


@pytest.mark.parametrize(
    ("prompts", "rate", "enough"), [(18, 0.05, 19), (98, 0.01, 99), (0, 0.5, 1)]
)
def test_too_few_ordinary_prompts_are_refused(prompts, rate, enough):
    sentence = f"got {prompts} ordinary prompts for LayerEntropy, expected at least {enough}"
    with pytest.raises(CalibrationError, match=sentence):
        calibration_of(torch.rand(prompts), rate)
    calibration_of(torch.rand(enough), rate)


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(CalibrationError, match="scores of LayerEntropy that are not finite"):
        calibration_of([1.0, float("nan")], 0.5)


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_impossible_rate_is_refused(rate):
    with pytest.raises(ValueError, match=r"got false_positive_rate=.*, expected a number between"):
        calibration_of(torch.rand(99), rate)


def test_no_detectors_are_refused():
    with pytest.raises(ValueError, match="got no scores"):
        calibrate({}, model_hash="a", settings=SETTINGS)


def test_verdict_is_above_not_at_the_threshold(calibration):
    threshold = calibration.thresholds["LayerEntropy"]
    assert not calibration.verdict("LayerEntropy", threshold)
    assert calibration.verdict("LayerEntropy", threshold + 1e-6)


def test_verdict_of_an_uncalibrated_detector_is_refused(calibration):
    with pytest.raises(
        CalibrationError, match=r"got detector NoiseMagnitude, expected one .*: LayerEntropy"
    ):
        calibration.verdict("NoiseMagnitude", 1.0)


def test_verdict_on_nan_is_refused(calibration):
    with pytest.raises(CalibrationError, match="got NaN as a score of LayerEntropy"):
        calibration.verdict("LayerEntropy", float("nan"))


def test_own_model_and_settings_pass_the_check(calibration):
    calibration.check("a" * 64, dataclasses.replace(SETTINGS))


def test_another_model_fails_the_check(calibration):
    with pytest.raises(CalibrationError, match="got weights with hash bbbbbbbbbbbb, expected aaa"):
        calibration.check(OTHER_MODEL, SETTINGS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 50}, "got steps=50, expected steps=20"),
        ({"height": 32, "width": 32}, "got height=32, width=32, expected height=64, width=64"),
        ({"scheduler": "PNDM-2"}, "got scheduler=PNDM-2, expected scheduler=DDIM-1"),
    ],
)
def test_other_settings_fail_the_check(calibration, change, sentence):
    with pytest.raises(CalibrationError, match=sentence):
        calibration.check("a" * 64, dataclasses.replace(SETTINGS, **change))


def test_saved_calibration_loads_as_it_was(calibration, tmp_path):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    assert Calibration.load(path) == calibration
    assert calibration.version == memattn.__version__
    assert calibration.samples == {"LayerEntropy": 40}


def test_threshold_survives_the_file_to_the_last_bit(tmp_path):
    calibration = calibration_of(torch.rand(99, dtype=torch.float64))
    calibration.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json").thresholds == calibration.thresholds


@pytest.mark.parametrize(
    ("prompts", "rate", "ends"),
    [(99, 0.01, [95.0, None]), (500, 0.01, [489.0, 499.0]), (1, 0.5, [None, None])],
)
def test_open_ends_of_an_interval_are_null_and_load_as_infinity(tmp_path, prompts, rate, ends):
    path = tmp_path / "calibration.json"
    calibration = calibration_of(torch.arange(float(prompts)), rate)
    calibration.save(path)

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(path.read_text(), parse_constant=refuse)
    assert content["intervals"] == {"LayerEntropy": ends}
    assert content["format"] == "memattn-calibration-2"
    assert Calibration.load(path) == calibration


def test_a_file_of_an_earlier_format_is_to_be_made_again(calibration, tmp_path):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    content = json.loads(path.read_text())
    del content["intervals"]
    path.write_text(json.dumps({**content, "format": "memattn-calibration-1"}))
    with pytest.raises(
        CalibrationError,
        match=r"got format 'memattn-calibration-1', expected 'memattn-calibration-2'; "
        "run memattn calibrate again",
    ):
        Calibration.load(path)


def test_saving_twice_gives_the_same_bytes_and_leaves_nothing_else(calibration, tmp_path):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    first = path.read_bytes()
    calibration.save(path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_saving_into_a_missing_folder_is_refused(calibration, tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot write .*No such file or directory"):
        calibration.save(tmp_path / "nowhere" / "calibration.json")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(CalibrationError, match=r"cannot read .*No such file or directory"):
        Calibration.load(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe{}", "utf-8"),
        (b"[]", "expected a JSON object with format"),
        (b'{"format": "memattn-calibration-3"}', "expected a JSON object with format"),
        (b'{"format": "memattn-calibration-2"}', "expected model_hash, settings"),
    ],
)
def test_file_that_is_no_calibration_is_refused(tmp_path, content, reason):
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=f"is no calibration: .*{reason}"):
        Calibration.load(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": {"stops": 3}}, "stops"),
        ({"settings": {"steps": 0}}, "got steps=0, expected at least 1"),
        ({"settings": 3}, "must be a mapping"),
        ({"thresholds": {}}, "expected threshold, interval and samples of the same detectors"),
        ({"thresholds": {"LayerEntropy": "high"}}, "got 'high', expected a finite number"),
        ({"thresholds": {"LayerEntropy": float("nan")}}, "got nan, expected a finite number"),
        ({"intervals": {}}, "expected threshold, interval and samples of the same detectors"),
        ({"intervals": {"LayerEntropy": [1, float("inf")]}}, "got inf, expected a finite number"),
        ({"intervals": {"LayerEntropy": [1, True]}}, "got True, expected a finite number"),
        ({"intervals": {"LayerEntropy": [1]}}, "got the interval [1], expected two numbers"),
        ({"intervals": {"LayerEntropy": None}}, "got the interval None, expected two numbers"),
        ({"intervals": {"LayerEntropy": [3, 1]}}, "[3, 1], expected its lower end first"),
        ({"samples": 3}, "not iterable"),
        ({"samples": {"LayerEntropy": 0}}, "got 0, expected a whole number from 1 up"),
        ({"samples": {"LayerEntropy": 40.5}}, "got 40.5, expected a whole number from 1 up"),
        ({"samples": {"NoiseMagnitude": 40}}, "of the same detectors"),
        ({"joint": 3}, "got the joint rate 3, expected flagged, prompts, low and high"),
        ({"joint": {"flagged": 1}}, "expected flagged, prompts, low and high"),
        (
            {"joint": {"flagged": 5, "prompts": 4, "low": 0, "high": 1}},
            "expected shares of the prompts",
        ),
        (
            {"joint": {"flagged": 1, "prompts": 4, "low": 0.5, "high": 0.1}},
            "expected shares of the prompts",
        ),
        (
            {"joint": {"flagged": 0.5, "prompts": 4, "low": 0, "high": 1}},
            "got 0.5, expected a whole number",
        ),
        ({"false_positive_rate": None}, "got None, expected a finite number"),
        ({"false_positive_rate": 1}, "got false_positive_rate 1.0, expected a number between"),
    ],
)
def test_damaged_entry_is_refused(calibration, tmp_path, change, reason):
    path = tmp_path / "calibration.json"
    calibration.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CalibrationError, match=f"is no calibration: .*{re.escape(reason)}"):
        Calibration.load(path)


def linear(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def pipeline(unet, **parts):
    """What a hash reads of a pipeline."""
    return SimpleNamespace(unet=unet, **parts)


def hash_of(unet):
    return model_hash(pipeline(unet))


def test_hash_of_equal_weights_is_equal_and_64_digits():
    assert hash_of(linear()) == hash_of(linear())
    assert re.fullmatch("[0-9a-f]{64}", hash_of(linear()))


def test_hash_changes_with_one_bit_a_name_a_shape_or_the_dtype():
    module = linear()
    changed, renamed, reshaped = linear(), torch.nn.Sequential(), linear()
    with torch.no_grad():
        changed[0].weight[0, 0] *= 1 + 2**-20
    renamed.add_module("a", module[0])
    renamed.add_module("b", module[1])
    reshaped[0].weight = torch.nn.Parameter(reshaped[0].weight.detach().reshape(3, 2))
    hashes = {hash_of(m) for m in (module, changed, renamed, reshaped, linear().double())}
    assert len(hashes) == 5


def test_hash_changes_with_a_text_tower_and_not_with_the_autoencoder():
    one, other = linear(1), linear(2)
    pipes = [
        pipeline(linear()),
        pipeline(linear(), text_encoder=one),
        pipeline(linear(), text_encoder=other),
        pipeline(linear(), text_encoder=one, text_encoder_2=one),
        pipeline(linear(), text_encoder=one, text_encoder_2=other),
    ]
    assert len({model_hash(pipe) for pipe in pipes}) == 5
    bare = pipeline(linear(), text_encoder=one, text_encoder_2=None, vae=other)
    assert model_hash(bare) == model_hash(pipes[1])


def test_hash_changes_with_a_lora_on_the_denoiser_or_the_text_tower(tmp_path):
    pipe = stable_diffusion(tmp_path)
    hashes = {model_hash(pipe)}
    for module, layer in (
        (pipe.unet, "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"),
        (pipe.text_encoder, "encoder.layers.0.self_attn.k_proj"),
    ):
        with torch.no_grad():
            # What a fused LoRA is: a product of low rank added to a weight.
            weight = module.get_submodule(layer).weight
            weight += 0.01 * torch.ones(weight.shape[0], 1) @ torch.ones(1, weight.shape[1])
        hashes.add(model_hash(pipe))
    assert len(hashes) == 3


def test_hash_ignores_strides_and_a_compiled_wrapper():
    module, strided = linear(), linear()
    weight = strided[0].weight.detach()
    strided[0].weight = torch.nn.Parameter(weight.T.contiguous().T)
    assert not strided[0].weight.is_contiguous()
    assert hash_of(strided) == hash_of(module)
    assert hash_of(torch.compile(module)) == hash_of(module)


def test_hash_tells_dtypes_apart_that_share_their_bytes():
    zeros = torch.nn.Linear(3, 2)
    torch.nn.init.zeros_(zeros.weight)
    torch.nn.init.zeros_(zeros.bias)
    as_bfloat16 = hash_of(zeros.bfloat16())
    assert as_bfloat16 != hash_of(zeros.half())


def joined(**scores):
    """A calibration of several detectors at 5 %, two of 40 prompts each."""
    return calibrate(
        {name: torch.as_tensor(values) for name, values in scores.items()},
        model_hash="a" * 64,
        settings=SETTINGS,
        false_positive_rate=0.05,
    )


def test_prompts_that_any_detector_flags_are_counted_once():
    rising = torch.arange(40.0)
    swapped = rising.clone()
    swapped[[0, 39]] = swapped[[39, 0]]
    expected = {(): 2, ("b",): 2, ("c",): 4, ("d",): 3, ("b", "c", "d"): 4}
    others = {"b": rising * 2, "c": -rising, "d": swapped}
    for names, flagged in expected.items():
        found = joined(a=rising, **{name: others[name] for name in names})
        assert found.joint == JointRate(flagged, 40, *share_interval(flagged, 40))


def test_the_joint_rate_is_that_of_new_prompts():
    generator = torch.Generator().manual_seed(0)
    said, real = [], []
    for _ in range(200):
        scores, new = (torch.randn(3, n, generator=generator) for n in (40, 400))
        calibration = joined(**dict(zip("abc", scores, strict=True)))
        said.append(calibration.joint.flagged / 40)
        above = [v > calibration.thresholds[n] for n, v in zip("abc", new, strict=True)]
        real.append(float(torch.stack(above).any(dim=0).float().mean()))
    # Two of the 40 places are flagged, and two of 41 of new prompts.
    assert sum(said) / 200 == pytest.approx(1 - (1 - 2 / 40) ** 3, abs=0.01)
    assert sum(real) / 200 == pytest.approx(1 - (1 - 2 / 41) ** 3, abs=0.01)


def test_the_joint_rate_is_a_sentence_where_there_is_something_to_join(calibration, tmp_path):
    assert calibration.joint_sentence == ""
    both = joined(a=torch.arange(40.0), b=-torch.arange(40.0))
    assert both.joint_sentence == (
        "A verdict joins 2 detectors, of which at least one flags 10 % of ordinary prompts "
        "(4 of 40, each by the thresholds of the others; 95 % interval 2.79 to 23.7 %)."
    )
    all_of_them = dataclasses.replace(
        both, joint=JointRate(flagged=40, prompts=40, low=0.91, high=1.0)
    )
    assert "flags 100 % of ordinary prompts (40 of 40" in all_of_them.joint_sentence
    both.save(tmp_path / "c.json")
    content = json.loads((tmp_path / "c.json").read_text())
    assert content.pop("joint")["flagged"] == 4
    (tmp_path / "c.json").write_text(json.dumps(content))  # as an earlier memattn wrote it
    earlier = Calibration.load(tmp_path / "c.json")
    assert (earlier.joint, earlier.joint_sentence) == (None, "")
    assert earlier.thresholds == both.thresholds


def test_detectors_that_scored_other_prompts_are_refused():
    with pytest.raises(ValueError, match="got scores 40 by a, 39 by b, expected every detector's"):
        joined(a=torch.arange(40.0), b=torch.arange(39.0))

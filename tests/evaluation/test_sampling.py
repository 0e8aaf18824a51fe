import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler

from memattn.detectors import DETECTORS, NoiseMagnitude
from memattn.errors import RecordError
from memattn.evaluation.sampling import RunSettings, sample
from tests.pipelines import LATENT, stable_diffusion

# numpy 2 about the Euler and Heun schedulers of diffusers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROMPTS = ["a red fox", "the lazy dog by the sea", "a blue house", "fog", "the fox"]
SEEDS = [5, 3, 8, 1, 3]
SETTINGS = RunSettings(steps=3, guidance_scale=5.0)


@pytest.fixture
def pipe(tmp_path):
    return stable_diffusion(
        tmp_path,
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )


def run(pipe, indices=range(5), **options):
    options = {"settings": SETTINGS, "batch_size": 2, "progress": False, **options}
    return sample(
        pipe,
        [PROMPTS[i] for i in indices],
        seeds=[SEEDS[i] for i in indices],
        **options,
    )


def test_images_and_record_have_one_row_per_prompt(pipe):
    samples = run(pipe)
    assert len(samples.images) == 5
    assert {image.size for image in samples.images} == {(2 * LATENT, 2 * LATENT)}
    assert (samples.record.samples, samples.record.calls) == (5, 3)
    for detector in DETECTORS:
        assert detector(samples.record).shape == (5,)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerAncestralDiscreteScheduler])
def test_sample_does_not_depend_on_its_batch(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    together = run(pipe, batch_size=5)
    for batches, order in ((run(pipe), range(5)), (run(pipe, (4, 2), batch_size=1), (4, 2))):
        expected = together.record.select(order)
        torch.testing.assert_close(
            batches.record.token_mass, expected.token_mass, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            batches.record.gap_squared, expected.gap_squared, rtol=1e-3, atol=1e-5
        )
        for image, index in zip(batches.images, order, strict=True):
            difference = np.asarray(image, int) - np.asarray(together.images[index], int)
            assert abs(difference).max() <= 1


def test_image_is_the_pipelines_own_for_that_seed(pipe):
    samples = run(pipe, (1,))
    alone = pipe(
        PROMPTS[1],
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEEDS[1]),
    ).images[0]
    difference = np.asarray(samples.images[0], int) - np.asarray(alone, int)
    assert abs(difference).max() <= 1


def test_same_prompt_with_another_seed_is_another_image(pipe):
    samples = sample(
        pipe, ["a fox"] * 3, seeds=[1, 2, 1], settings=SETTINGS, batch_size=3, progress=False
    )
    first, second, third = (np.asarray(image, int) for image in samples.images)
    assert abs(first - second).max() > 1
    assert abs(first - third).max() <= 1


@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
def test_first_call_only_scores_as_the_whole_run_does(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    stopped = run(pipe, first_call_only=True)
    handle.remove()
    assert len(calls) == 3  # batches of 2, 2 and 1
    assert stopped.images is None
    assert stopped.record.calls == 1
    assert stopped.record.scheduled_calls > 1
    whole = run(pipe)
    for detector in DETECTORS:
        if detector.one_call:
            assert torch.equal(detector(stopped.record), detector(whole.record))
        else:
            with pytest.raises(RecordError):
                detector(stopped.record)


def test_pipeline_runs_to_its_end_again_after_a_stopped_run(pipe):
    run(pipe, first_call_only=True)
    assert run(pipe).record.calls == 3


def test_only_the_fields_asked_for_are_recorded(pipe):
    record = run(pipe, fields=("gap_squared",)).record
    assert record.token_mass is None
    assert record.token_maps is None
    assert NoiseMagnitude()(record).shape == (5,)


def test_unguided_run_has_no_gap_and_says_how_to_get_one(pipe):
    record = run(pipe, settings=RunSettings(steps=2, guidance_scale=1.0)).record
    with pytest.raises(RecordError, match="holds no gap_squared; record a guided run"):
        NoiseMagnitude()(record)


def test_progress_bar_counts_calls_on_stderr(pipe, capfd):
    run(pipe, progress=True, label="thresholds")
    out, err = capfd.readouterr()
    assert out == ""
    assert "thresholds" in err
    assert "9/9" in err  # three batches of three calls


def test_silent_run_prints_nothing_and_restores_the_pipelines_bar(pipe, capfd):
    pipe.set_progress_bar_config(desc="mine")
    run(pipe)
    assert capfd.readouterr() == ("", "")
    assert pipe._progress_bar_config == {"desc": "mine"}


def test_pipeline_is_left_as_it_was_when_a_run_fails(pipe):
    before = pipe.unet.attn_processors
    with pytest.raises(ValueError, match="divisible by 8"):
        run(pipe, settings=RunSettings(steps=2, height=15, width=16))
    assert pipe.unet.attn_processors == before
    assert pipe._progress_bar_config == {"disable": True}


@pytest.mark.parametrize(
    ("prompts", "options", "sentence"),
    [
        ([], {"seeds": []}, "got no prompts, expected at least one"),
        (["a", "b"], {"seeds": [1]}, "got 1 seeds, expected one for each of 2 prompts"),
        (["a"], {"seeds": [1], "batch_size": 0}, "got batch_size=0, expected at least 1"),
    ],
)
def test_impossible_requests_are_refused(pipe, prompts, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        sample(pipe, prompts, settings=SETTINGS, **options)


def test_without_images_the_record_is_the_same_and_nothing_is_decoded(pipe):
    decoded = []
    handle = pipe.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    samples = run(pipe, images=False)
    handle.remove()
    assert samples.images is None
    assert decoded == []
    assert torch.equal(samples.record.gap_squared, run(pipe).record.gap_squared)


def test_the_first_batch_is_shown_before_the_second_is_made(pipe):
    calls = []
    pipe.unet.register_forward_hook(lambda *_: calls.append(1))

    def refuse(record):
        assert record.samples == 2
        raise RecordError("cannot read this")

    with pytest.raises(RecordError, match="cannot read this"):
        run(pipe, on_first_batch=refuse)
    assert len(calls) == 3  # the calls of one batch

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler, HeunDiscreteScheduler

from memattn.detectors import DETECTORS, NoiseMagnitude
from memattn.errors import RecordError
from memattn.evaluation.sampling import sample
from memattn.evaluation.settings import RunSettings
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
    options = {"settings": SETTINGS, **options}
    return sample(
        pipe,
        [PROMPTS[i] for i in indices],
        seeds=[SEEDS[i] for i in indices],
        **options,
    )


def test_images_and_record_have_one_row_per_prompt(pipe):
    samples = run(pipe)
    assert samples.images.shape == (5, 2 * LATENT, 2 * LATENT, 3)
    assert samples.images.dtype == np.uint8
    assert (samples.record.samples, samples.record.calls) == (5, 3)
    for detector in DETECTORS:
        assert detector(samples.record).shape == (5,)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerAncestralDiscreteScheduler])
def test_sample_does_not_depend_on_its_batch(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    together = run(pipe)
    for order in ((4, 2), (1,)):
        part = run(pipe, order)
        expected = together.record.select(order)
        torch.testing.assert_close(
            part.record.token_mass, expected.token_mass, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            part.record.gap_squared, expected.gap_squared, rtol=1e-3, atol=1e-5
        )
        difference = part.images.astype(int) - together.images[list(order)]
        assert abs(difference).max() <= 1


def test_image_is_the_pipelines_own_for_that_seed(pipe):
    samples = run(pipe, (1,))
    alone = pipe(
        PROMPTS[1],
        num_inference_steps=3,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(SEEDS[1]),
    ).images[0]
    difference = samples.images[0].astype(int) - np.asarray(alone)
    assert abs(difference).max() <= 1


def test_same_prompt_with_another_seed_is_another_image(pipe):
    samples = sample(pipe, ["a fox"] * 3, seeds=[1, 2, 1], settings=SETTINGS)
    first, second, third = samples.images.astype(int)
    assert abs(first - second).max() > 1
    assert abs(first - third).max() <= 1


@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
def test_first_call_only_scores_as_the_whole_run_does(pipe, scheduler):
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    calls = []
    handle = pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    stopped = run(pipe, first_call_only=True)
    handle.remove()
    assert len(calls) == 1
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


def test_every_denoiser_call_is_reported_with_their_number(pipe):
    reported = []
    run(pipe, on_call=reported.append)
    assert reported == [3, 3, 3]
    run(pipe, first_call_only=True, on_call=reported.append)
    assert reported == [3, 3, 3, 1]


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

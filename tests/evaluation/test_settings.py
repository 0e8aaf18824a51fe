import dataclasses

import pytest
from diffusers import DDIMScheduler, PNDMScheduler

from memattn.evaluation.settings import RunSettings
from tests.pipelines import LATENT, stable_diffusion


@pytest.fixture
def pipe(tmp_path):
    return stable_diffusion(tmp_path)


def test_resolving_fills_in_size_and_scheduler(pipe):
    settings = RunSettings().resolve(pipe)
    assert (settings.height, settings.width) == (2 * LATENT, 2 * LATENT)
    assert settings.scheduler.startswith("DDIMScheduler-")
    assert (settings.steps, settings.guidance_scale) == (50, 7.5)
    assert settings.resolve(pipe) == settings


def test_resolving_keeps_a_size_that_was_asked_for(pipe):
    settings = RunSettings(height=32, width=48).resolve(pipe)
    assert (settings.height, settings.width) == (32, 48)


def test_scheduler_is_told_apart_by_class_and_by_configuration(pipe):
    config = pipe.scheduler.config
    schedulers = [
        DDIMScheduler.from_config(config),
        DDIMScheduler.from_config(config, timestep_spacing="trailing"),
        PNDMScheduler.from_config(config, skip_prk_steps=True),
    ]
    names = []
    for scheduler in schedulers:
        pipe.scheduler = scheduler
        names.append(RunSettings().resolve(pipe).scheduler)
    assert len(set(names)) == 3


def test_scheduler_name_survives_saving_the_pipeline(pipe, tmp_path):
    before = RunSettings().resolve(pipe).scheduler
    pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    pipe.scheduler = DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    pipe.scheduler.set_timesteps(7)
    assert RunSettings().resolve(pipe).scheduler == before


def test_another_scheduler_than_the_pipelines_is_refused(pipe):
    settings = dataclasses.replace(RunSettings().resolve(pipe), scheduler="PNDMScheduler-0")
    with pytest.raises(ValueError, match=r"scheduler DDIMScheduler-\w+, expected PNDMScheduler-0"):
        settings.resolve(pipe)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "got steps=0, expected at least 1"),
        ({"guidance_scale": float("inf")}, "got guidance_scale=inf, expected a finite number"),
        ({"height": 0}, "got height=0, expected at least 1 or None"),
        ({"width": -8}, "got width=-8, expected at least 1 or None"),
    ],
)
def test_numbers_that_no_pipeline_can_run_are_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        RunSettings(**values)

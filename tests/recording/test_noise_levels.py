import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    PNDMScheduler,
)

from memattn.recording.noise_levels import prediction_type_of, sigmas_of

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        PNDMScheduler,
        EulerDiscreteScheduler,
        HeunDiscreteScheduler,
        DPMSolverMultistepScheduler,
    ],
)
def test_sigmas_are_those_of_the_training_schedule(scheduler):
    scheduler = scheduler(timestep_spacing="leading", steps_offset=1)
    scheduler.set_timesteps(7)
    timesteps = scheduler.timesteps.float()
    abar = scheduler.alphas_cumprod[timesteps.long()]
    found = sigmas_of(scheduler, timesteps)
    torch.testing.assert_close(found, ((1 - abar) / abar).sqrt(), rtol=1e-4, atol=1e-5)
    # a run that began in the middle of the schedule, as image-to-image does
    assert torch.equal(sigmas_of(scheduler, timesteps[3:]), found[3:])


def test_karras_sigmas_are_read_beside_the_timesteps():
    scheduler = EulerDiscreteScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(5)
    assert torch.equal(sigmas_of(scheduler, scheduler.timesteps.float()), scheduler.sigmas[:-1])


def test_unknown_noise_levels_are_nan_never_invented():
    scheduler = KDPM2DiscreteScheduler()
    scheduler.set_timesteps(5)
    assert sigmas_of(scheduler, torch.tensor([500.5])).isnan().all()
    assert sigmas_of(None, torch.tensor([500.0])).isnan().all()


def test_prediction_type_is_unknown_where_it_does_not_mean_the_raw_output():
    assert prediction_type_of(DDIMScheduler(prediction_type="v_prediction")) == "v_prediction"
    for scheduler in (None, EDMEulerScheduler(), FlowMatchEulerDiscreteScheduler()):
        assert prediction_type_of(scheduler) == "unknown"

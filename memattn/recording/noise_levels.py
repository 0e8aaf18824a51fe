"""Noise levels of the recorded calls, read from the pipeline's scheduler, if there is one."""

from typing import Any

import torch
from torch import Tensor


def sigmas_of(scheduler: Any, timesteps: Tensor) -> Tensor:  # noqa: ANN401 (any scheduler, or None)
    """sqrt((1 - abar) / abar) at each timestep [S], float32; NaN where the scheduler cannot say.

    Schedulers of the Euler, Heun and DPM families hold one sigma beside each of their timesteps;
    DDIM, PNDM and DDPM hold abar for every training timestep.
    """
    if scheduler is None:
        return torch.full_like(timesteps, torch.nan)
    schedule = scheduler.timesteps.detach().cpu().double()
    beside = getattr(scheduler, "sigmas", None)
    if isinstance(beside, Tensor) and len(beside) == len(schedule) + 1:
        matches = timesteps.double()[:, None] == schedule.float().double()  # [S, planned]
        found = beside.detach().cpu().double()[matches.int().argmax(1)]
        return torch.where(matches.any(1), found, torch.nan).float()
    alphas_cumprod = getattr(scheduler, "alphas_cumprod", None)
    whole = (timesteps == timesteps.round()).all()
    if isinstance(alphas_cumprod, Tensor) and whole and timesteps.max() < len(alphas_cumprod):
        abar = alphas_cumprod.detach().cpu().double()[timesteps.long()]
        return ((1 - abar) / abar).sqrt().float()
    return torch.full_like(timesteps, torch.nan)


def prediction_type_of(scheduler: Any) -> str:  # noqa: ANN401 (any scheduler, or None)
    """What the scheduler takes the denoiser's output for; "unknown" where `Record` has no word."""
    if scheduler is None:
        return "unknown"
    prediction_type = scheduler.config.get("prediction_type")
    # EDM schedulers scale the raw output by sigma_data before they read it as this type.
    if prediction_type not in ("epsilon", "v_prediction", "sample") or (
        "sigma_data" in scheduler.config
    ):
        return "unknown"
    return str(prediction_type)

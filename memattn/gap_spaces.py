"""Converts a squared guidance gap of the raw output to the noise or the clean latent."""

from collections.abc import Callable

import torch
from torch import Tensor

from memattn.errors import RecordError

_SPACES = ("output", "epsilon", "x0")
# What the output predicts is the space it lives in.
_OUTPUT_SPACE = {"epsilon": "epsilon", "sample": "x0"}

# What a squared gap of the output is multiplied by, as a function of sigma^2.
_FACTORS: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
    ("epsilon", "x0"): lambda sigma_squared: sigma_squared,
    ("sample", "epsilon"): lambda sigma_squared: 1 / sigma_squared,
    ("v_prediction", "epsilon"): lambda sigma_squared: 1 / (1 + sigma_squared),
    # sigma^2 / (1 + sigma^2), written so that sigma = inf (zero terminal SNR) gives 1, not nan
    ("v_prediction", "x0"): lambda sigma_squared: 1 - 1 / (1 + sigma_squared),
}


def squared_factors(prediction_type: str, space: str, sigmas: Tensor) -> Tensor:
    """Factor of every call [S], float64, that takes a squared gap of the output to `space`."""
    if space not in _SPACES:
        raise ValueError(f"got space {space!r}, expected 'output', 'epsilon' or 'x0'.")
    if space == "output" or _OUTPUT_SPACE.get(prediction_type) == space:
        return torch.ones_like(sigmas, dtype=torch.float64)
    factor = _FACTORS.get((prediction_type, space))
    if factor is None:
        raise RecordError(
            f"got prediction type {prediction_type!r}, expected 'epsilon', 'v_prediction' or "
            f"'sample' to convert the gap to {space}; record the pipeline, or use space='output'."
        )
    if sigmas.isnan().any():
        raise RecordError(
            f"this record holds no noise levels, which a gap in {space} of a model that predicts "
            f"{prediction_type} needs; use space='output'."
        )
    return factor(sigmas.double().square())

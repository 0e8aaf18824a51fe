"""The guidance gap, read from the raw output of the denoiser."""

from typing import Any

from torch import Tensor

from memattn.errors import RecordingError


def raw_output(output: Any) -> Tensor:  # noqa: ANN401 (tensor, tuple, or a diffusers output)
    """The prediction [rows, C, h, w] in whatever the denoiser returned."""
    prediction: Tensor = output if isinstance(output, Tensor) else output[0]
    if prediction.ndim != 4:
        raise RecordingError(
            f"got a denoiser output of shape {list(prediction.shape)}, expected [rows, C, h, w]: "
            "of denoisers, only those of single images are recorded."
        )
    return prediction


def gap_squared(prediction: Tensor) -> Tensor:
    """sum_c (conditional - unconditional)^2 of [uncond, cond] rows: [B, h, w], float32.

    The difference is taken in float32: two close half-precision numbers would lose it.
    """
    unconditional, conditional = prediction.float().chunk(2)
    return (conditional - unconditional).square().sum(1)

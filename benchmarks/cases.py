"""What is timed: a shape in a dtype on a device, and its inputs."""

from typing import NamedTuple

import torch
from torch import Tensor

from memattn.benchmarks.shapes import JOINT_SHAPES, SHAPES, STABLE_DIFFUSION, Shape

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# On a GPU, float16 takes the same instructions.
_USUAL_DTYPES = {"cpu": ("fp32", "bf16"), "cuda": ("bf16",)}
_USUAL_SHAPES = {"cpu": STABLE_DIFFUSION, "cuda": SHAPES}
_USUAL_JOINT_DTYPES = ("bf16",)
# One call takes seconds on two cores.
_USUAL_JOINT_SHAPES = {"cpu": JOINT_SHAPES[:1], "cuda": JOINT_SHAPES}


class Case(NamedTuple):
    """One shape in one dtype on one device; all providers of a case form a group."""

    shape: Shape
    dtype_name: str
    device: str

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of query, key, value and output."""
        return DTYPES[self.dtype_name]

    @property
    def name(self) -> str:
        """The group's name in pytest-benchmark's table."""
        return f"{self.shape.name}-{self.dtype_name}"


def cross_attention_cases(device: str, *, every: bool, only: str) -> list[Case]:
    """The cases of one run.

    Args:
        device: "cpu" or "cuda".
        every: Also the dtypes, and on the CPU the models, that are left out of a usual run.
        only: Keep shapes whose name contains this.
    """
    shapes = SHAPES if every else _USUAL_SHAPES[device]
    return _cases(shapes, tuple(DTYPES) if every else _USUAL_DTYPES[device], device, only)


def joint_attention_cases(device: str, *, every: bool, only: str) -> list[Case]:
    """As `cross_attention_cases`."""
    shapes = JOINT_SHAPES if every else _USUAL_JOINT_SHAPES[device]
    return _cases(shapes, tuple(DTYPES) if every else _USUAL_JOINT_DTYPES, device, only)


def _cases(
    shapes: tuple[Shape, ...], dtypes: tuple[str, ...], device: str, only: str
) -> list[Case]:
    return [
        Case(shape, dtype, device) for shape in shapes if only in shape.name for dtype in dtypes
    ]


def inputs(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Query [B, H, Lq, D], key and value [B, H, Lk, D], as a processor passes them.

    That is as views of (B, L, H, D), which is how the projections wrote them. Random numbers of
    unit variance, the same in every run.
    """
    generator = torch.Generator().manual_seed(0)
    shape = case.shape

    def projected(length: int) -> Tensor:
        drawn = torch.randn(shape.batch, length, shape.heads, shape.dim, generator=generator)
        return drawn.to(case.device, case.dtype).transpose(1, 2)

    return projected(shape.queries), projected(shape.keys), projected(shape.keys)

"""What every launch needs: whether it can be, how it is compiled, and operands in order."""

import contextlib
import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton import knobs

from memattn.kernels.triton.tiles import Tiles, parts

# Triton's names for nvidia and amd, and for intel. The interpreter takes the CPU's tensors.
_DEVICES = ("cpu",) if knobs.runtime.interpret else ("cuda", "xpu")
# Of bfloat16 the interpreter has no arithmetic.
_DTYPES = (torch.float32, torch.float16, *(() if knobs.runtime.interpret else (torch.bfloat16,)))
_LEAST_MAJOR = 8  # what Triton compiles for
# Blackwell's for data centres and cars; its others have none.
TENSOR_MEMORY_MAJORS = (10, 11)
_MOST_COUNTED = 2**31 - 1


class Launch(NamedTuple):
    """A kernel and all that it is compiled with.

    Attributes:
        kernel: The kernel.
        constants: Its compile-time arguments by name.
        warps: Warps per program.
        stages: Tiles that are being loaded or computed at a time.
    """

    kernel: Any
    constants: dict[str, Any]
    warps: int
    stages: int

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's options, which have Triton's names."""
        # Products and sums in one instruction, as before Triton 3.10 by default.
        return {
            "num_warps": self.warps,
            "num_stages": self.stages,
            "enable_fp_fusion": True,
        }

    def __call__(self, grid: tuple[int, ...], *arguments: object) -> None:
        """Launch it with its remaining arguments, in order."""
        self.kernel[grid](*arguments, **self.constants, **self.options)


class Form(NamedTuple):
    """What every kernel that goes over tiles of keys is chosen and compiled by.

    Attributes:
        dtype: Of query, key and value.
        dim: D.
        keys: Lk, or the number of columns.
        stride_unit: What all strides are multiples of.
        precision: How products are computed.
        has_bias: Whether there is a key_bias.
        has_begin: Whether there is a begin_scale.
    """

    dtype: torch.dtype
    dim: int
    keys: int
    stride_unit: int
    precision: str
    has_bias: bool
    has_begin: bool

    @classmethod
    def of(
        cls,
        query: Tensor,
        key: Tensor,
        *others: Tensor,
        key_bias: Tensor | None,
        begin_scale: Tensor | None,
    ) -> "Form":
        """The form of a call on operands as kernels read them."""
        return cls(
            query.dtype,
            query.shape[3],
            key.shape[2],
            stride_unit(query, key, *others),
            precision_of(query),
            key_bias is not None,
            begin_scale is not None,
        )

    @property
    def logit_unit(self) -> float:
        """What 1 is as a kernel's logit: log2 e, or in float32 1.

        exp2 is what processors have, but to base 2 a logit of -100 keeps six digits of exp only.
        Of products of 16-bit numbers none is so exact; those of float32 may be.
        """
        return 1.0 if self.dtype == torch.float32 else math.log2(math.e)

    @property
    def is_biased(self) -> bool:
        """Whether the logits are more than scaled products."""
        return self.has_bias or self.has_begin

    def constants(self, tiles: Tiles, **own: bool) -> dict[str, Any]:
        """What a kernel is compiled with: the form, the tiles, and what only this kernel asks."""
        dim_0, dim_1 = parts(self.dim)
        return {
            "DIM": self.dim,
            "DIM_0": dim_0,
            "DIM_1": dim_1,
            "STRIDE_UNIT": self.stride_unit,
            "LOGIT_UNIT": self.logit_unit,
            "BLOCK_Q": tiles.block_q,
            "PRECISION": self.precision,
            "HAS_BIAS": self.has_bias,
            "HAS_BEGIN": self.has_begin,
            **self._keys(tiles),
            **own,
        }

    def _keys(self, tiles: Tiles) -> dict[str, int]:
        if tiles.block_k:
            # Only a bias is looked through before.
            all_keys = next_power_of_two(self.keys) if self.has_bias else 1
            return {"ALL_KEYS": all_keys, "BLOCK_K": tiles.block_k}
        keys_0, keys_1 = parts(self.keys)
        return {"KEYS_0": keys_0, "KEYS_1": keys_1}


def refusal(query: Tensor) -> str | None:
    """Say what about the device, dtype or depth of a call the kernels cannot do, or None."""
    dim = query.shape[3]
    if query.device.type not in _DEVICES:
        return f"it takes tensors on {' or '.join(_DEVICES)}, got {query.device}"
    if _is_nvidias(query.device):
        gpu = torch.cuda.get_device_properties(query.device)
        if gpu.major < _LEAST_MAJOR:
            found = f"{gpu.major}.{gpu.minor} ({gpu.name})"
            return f"it takes compute capability {_LEAST_MAJOR}.0 or more, got {found}"
    if query.dtype not in _DTYPES:
        return f"it takes {', '.join(map(str, _DTYPES))}, got {query.dtype}"
    if dim % 8 != 0 or dim > 256:
        return f"it takes head dimensions that are multiples of 8 up to 256, got {dim}"
    size = query.shape[1] * query.shape[2] * dim
    if size > _MOST_COUNTED:
        return f"it takes samples of up to {_MOST_COUNTED} numbers, got {size}"
    return None


@functools.cache
def has_tensor_memory(device: torch.device) -> bool:
    """Whether it is a GPU that multiplies into a memory of its own; tiles are chosen by it."""
    if not _is_nvidias(device):
        return False
    return torch.cuda.get_device_capability(device)[0] in TENSOR_MEMORY_MAJORS


def _is_nvidias(device: torch.device) -> bool:
    return device.type == "cuda" and torch.version.hip is None


def running_on(tensor: Tensor) -> contextlib.AbstractContextManager[object]:
    """Makes the tensor's device the current one, where Triton launches."""
    if tensor.device.type == "cpu":
        return contextlib.nullcontext()
    return torch.accelerator.device_index(tensor.device.index)


def readable(tensor: Tensor) -> Tensor:
    """The tensor, copied if kernels cannot read it as it lies.

    The numbers of one head and position have to lie side by side, and one head's positions within
    what 32 bits can count.
    """
    span = (tensor.shape[2] - 1) * tensor.stride(2) + tensor.shape[3]
    return tensor if tensor.stride(3) == 1 and span <= _MOST_COUNTED else tensor.contiguous()


def without_gaps(tensor: Tensor | None, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """A small operand as the kernels read it: in one dtype and in order."""
    return None if tensor is None else tensor.to(dtype).contiguous()


def stride_unit(*tensors: Tensor) -> int:
    """8 if all strides are multiples of it, else 1.

    Told so, Triton loads 16 bytes at a time. By itself it looks for multiples of 16, which the head
    stride of 40 or 72 is not: it then loads number by number.
    """
    return 8 if all(stride % 8 == 0 for stride in strides(1, *tensors)) else 1


def strides(unit: int, *tensors: Tensor) -> tuple[int, ...]:
    """Each tensor's strides of batch, head and position, in units; 0 for an axis of one."""
    return _strides(unit, tuple((tensor.shape, tensor.stride()) for tensor in tensors))


@functools.lru_cache  # the layers of a model ask for the same few, at every call
def _strides(
    unit: int, layouts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
) -> tuple[int, ...]:
    return tuple(
        stride // unit if size > 1 else 0
        for shape, steps in layouts
        for size, stride in zip(shape[:3], steps[:3], strict=True)
    )


def precision_of(query: Tensor) -> str:
    """How products are computed: those of float32 from TF32 only where torch's own may be."""
    # Few of AMD's processors have TF32, and the setting is CUDA's.
    may_round = _is_nvidias(query.device) and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if may_round and query.dtype == torch.float32 else "ieee"


def divided_up(length: int, size: int) -> int:
    """How many pieces of a size hold a length."""
    return -(-length // size)


def next_power_of_two(length: int) -> int:
    """The smallest power of two that is not below `length`."""
    return 1 << (length - 1).bit_length()

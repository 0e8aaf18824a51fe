"""Who is timed on joint attention: a library's kernel alone, and with the text's statistics.

The statistics are those of the text's columns over the image's queries, which is what
cross-attention has. They take the rows' logsumexp from the kernel, which `torch`'s public function
does not return; so the kernels are called by the operators below it.
"""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

import memattn
from memattn.benchmarks.cases import Case
from memattn.benchmarks.providers import (
    SDPA,
    Attended,
    Provider,
    Unavailable,
    for_projection,
    kernel,
)
from memattn.ops import dispatch
from memattn.ops.column_statistics import OPERATION
from memattn.types import Backend, ColumnStatisticsRequest

_Attention = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


def _attention(operator: str, *arguments: object) -> _Attention:
    """An operator that returns output [B, H, N, D] and logsumexp, and perhaps more."""

    def call(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        try:
            found: tuple[Tensor, ...] = getattr(torch.ops.aten, operator)(
                query, key, value, *arguments
            )
        except RuntimeError as error:
            raise Unavailable(str(error).splitlines()[0]) from error
        return found

    return call


# After the operands: a bias, and whether logsumexp is wanted. The others always return it.
_KERNELS: dict[str, dict[SDPBackend, _Attention]] = {
    "cpu": {
        SDPBackend.FLASH_ATTENTION: _attention("_scaled_dot_product_flash_attention_for_cpu"),
    },
    "cuda": {
        SDPBackend.FLASH_ATTENTION: _attention("_scaled_dot_product_flash_attention"),
        SDPBackend.CUDNN_ATTENTION: _attention("_scaled_dot_product_cudnn_attention", None, True),
        SDPBackend.EFFICIENT_ATTENTION: _attention(
            "_scaled_dot_product_efficient_attention", None, True
        ),
    },
}


def providers(case: Case) -> list[Provider]:
    """Everybody for a case of joint attention: each kernel with the text's statistics, and alone.

    Of memattn's backends the one that `auto` takes.
    """
    backend = _backend(case)
    kernels = _KERNELS[case.device]
    ours = [
        Provider(
            f"memattn_{backend}_on_{kernel(name).name.removeprefix('sdpa_')}",
            "with statistics",
            partial(_with_text, attention, case.shape.text, backend),
        )
        for name, attention in kernels.items()
    ]
    return [*ours, SDPA, *map(kernel, kernels)]


def _with_text(
    attention: _Attention, text: int, backend: Backend, query: Tensor, key: Tensor, value: Tensor
) -> Attended:
    output, logsumexp, *_ = attention(query, key, value)
    # cuDNN keeps a last axis of one; the efficient kernel pads the rows.
    rows = logsumexp.flatten(2)[:, :, text : query.shape[2]]
    found = memattn.column_statistics(query[:, :, text:], key[:, :, :text], rows, backend=backend)
    return Attended(for_projection(output), found.token_mass, found.token_entropy)


def _backend(case: Case) -> Backend:
    """The first backend that can run the text's statistics of a case."""
    shape = case.shape
    tokens = torch.empty(
        shape.batch, shape.keys, shape.heads, shape.dim, dtype=case.dtype, device=case.device
    ).transpose(1, 2)
    image, text = tokens[:, :, shape.text :], tokens[:, :, : shape.text]
    rows = image[..., 0].float()
    request = ColumnStatisticsRequest(image, text, rows, None, None, shape.dim**-0.5)
    able = [name for name, reason in dispatch.reasons(OPERATION, request) if reason is None]
    return cast(Backend, able[0])

"""What can be tuned: the Triton kernels, their candidates, and a problem for each."""

import contextlib
import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import memattn
from memattn.benchmarks.cases import DTYPES, Case, inputs
from memattn.benchmarks.shapes import JOINT_SHAPES, SHAPES, Shape
from memattn.kernels.triton import tiles
from memattn.kernels.triton.launch import has_tensor_memory
from memattn.kernels.triton.tiles import Tiles
from memattn.testing import assert_within_error_budget, explicit_cross_attention


class Group(NamedTuple):
    """Calls that are launched with the same tiles.

    Attributes:
        kernel: A name in `KERNELS`.
        length: Keys, or columns.
        dim: D.
        dtype: The name of the dtype.
    """

    kernel: str
    length: int
    dim: int
    dtype: str


class Problem(NamedTuple):
    """A call on a layer's inputs, and what its results are compared with.

    Attributes:
        inputs: Tensors.
        call: Takes them.
        exact: The results in float64.
        eager: The results of eager torch.
    """

    inputs: tuple[Tensor, ...]
    call: Callable[..., tuple[Tensor | None, ...]]
    exact: tuple[Tensor, ...]
    eager: tuple[Tensor, ...]

    def check(self, result: tuple[Tensor | None, ...]) -> None:
        """Compare a result with the truth, by the error budget of the tests.

        Raises:
            AssertionError: If it is wrong.
        """
        given = [tensor for tensor in result if tensor is not None]
        for actual, exact, eager in zip(given, self.exact, self.eager, strict=True):
            assert_within_error_budget(actual, exact=exact, eager=eager)


class Kernel(NamedTuple):
    """One entry of kernels/triton/tiles.py.

    Attributes:
        operation: What is called.
        module: Where in memattn.kernels.triton it is launched.
        tiles: The function that is asked for tiles there.
        shapes: Layers it is tuned on.
        length: Their keys, or columns.
        problem: Makes inputs and call from a case, and the truth if it is to be judged.
        grid: What is tried in a group.
        now: The tiles of a group today, without key_bias and begin_scale.
    """

    operation: str
    module: str
    tiles: str
    shapes: tuple[Shape, ...]
    length: Callable[[Shape], int]
    problem: Callable[[Case, bool], Problem]
    grid: Callable[[Group], Iterator[tuple[int, ...]]]
    now: Callable[[Group], Tiles]


@contextlib.contextmanager
def with_tiles(kernel: str, chosen: Tiles) -> Iterator[None]:
    """Launch a kernel with other tiles than its own."""
    entry = KERNELS[kernel]
    module = importlib.import_module(f"memattn.kernels.triton.{entry.module}")
    own = getattr(module, entry.tiles)
    setattr(module, entry.tiles, lambda *_, **__: chosen)
    try:
        yield
    finally:
        setattr(module, entry.tiles, own)


def problem(kernel: str, case: Case, *, judged: bool) -> Problem:
    """A kernel's problem on a case; without `judged` it has nothing to compare results with."""
    # Defines the op that `call` may call by its name.
    importlib.import_module(f"memattn.ops.{KERNELS[kernel].operation}").OPERATION.functions(
        "triton"
    )
    return KERNELS[kernel].problem(case, judged)


def _forward(case: Case, judged: bool) -> Problem:
    tensors = inputs(case)

    def call(*operands: Tensor) -> tuple[Tensor | None, ...]:
        return memattn.cross_attention(*operands, backend="triton")

    if not judged:
        return Problem(tensors, call, (), ())
    exact = explicit_cross_attention(*(tensor.double() for tensor in tensors))
    sums = explicit_cross_attention(*(tensor.float() for tensor in tensors))[1:3]
    output = explicit_cross_attention(*tensors).output
    return Problem(tensors, call, _tensors(exact[:3]), _tensors((output, *sums)))


def _backward(case: Case, judged: bool) -> Problem:
    operands = inputs(case)
    # Forward with today's tiles; what is tuned is the backward alone.
    attended = torch.ops.memattn.cross_attention_triton(
        *operands, None, None, None, case.shape.dim**-0.5, False, True
    )
    output, logsumexp = attended[0], attended[4]
    grad_output = torch.randn_like(output)

    def call(
        grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, rows: Tensor
    ) -> tuple[Tensor | None, ...]:
        found: tuple[Tensor, ...] = torch.ops.memattn.cross_attention_triton_backward(
            grad, query, key, value, None, None, out, rows, case.shape.dim**-0.5
        )
        return tuple(found)

    tensors = (grad_output, *operands, output, logsumexp)
    if not judged:
        return Problem(tensors, call, (), ())
    exact = _gradients(grad_output.double(), *(tensor.double() for tensor in operands))
    return Problem(tensors, call, exact, _gradients(grad_output, *operands))


def _gradients(grad_output: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [tensor.clone().requires_grad_() for tensor in operands]
        output = explicit_cross_attention(*leaves).output
        return torch.autograd.grad(output, leaves, grad_output.clone())


def _columns(case: Case, judged: bool) -> Problem:
    query, key, _ = inputs(case)
    text = case.shape.text
    # Of the text alone: any normaliser will do, and this one needs no attention.
    image, columns = query[:, :, text:], key[:, :, :text]
    wide = columns.float()
    logsumexp = explicit_cross_attention(image.float(), wide, wide).logsumexp
    assert logsumexp is not None
    tensors = (image, columns, logsumexp)

    def call(*operands: Tensor) -> tuple[Tensor | None, ...]:
        return memattn.column_statistics(*operands, backend="triton")

    if not judged:
        return Problem(tensors, call, (), ())
    exact, eager = (
        memattn.column_statistics(*(tensor.to(dtype) for tensor in tensors), backend="reference")
        for dtype in (torch.float64, torch.float32)
    )
    return Problem(tensors, call, _tensors(exact[:2]), _tensors(eager[:2]))


def _tensors(fields: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in fields if tensor is not None)


def candidates(group: Group) -> list[Tiles]:
    """Today's tiles first, which everything else is compared with; then the grid."""
    kernel = KERNELS[group.kernel]
    grid = (Tiles(*each) for each in kernel.grid(group))
    return list(dict.fromkeys([kernel.now(group), *grid]))


def _has_tensor_memory() -> bool:
    """Of the GPU that is tuned on."""
    if not torch.cuda.is_available():
        return False
    return has_tensor_memory(torch.device("cuda", torch.cuda.current_device()))


def _forward_grid(group: Group) -> Iterator[tuple[int, ...]]:
    """Several tiles of keys, and all keys as one where they may fit."""
    if group.length <= _MOST_KEYS_AS_ONE:
        yield from itertools.product(_blocks_q(), (0,), (1, 2, 4, 8), (4, 8), (1, 2))
    yield from itertools.product(_blocks_q(), (32, 64, 128), (1,), (4, 8), (2, 3))


def _backward_grid(group: Group) -> Iterator[tuple[int, ...]]:
    return itertools.product((32, 64, 128), (16, 32, 64), (16, 32), (4, 8), (1, 2))


def _column_grid(group: Group) -> Iterator[tuple[int, ...]]:
    return itertools.product(_blocks_q(), (32, 64, 128), (4, 8, 16), (4, 8), (2, 3))


def _blocks_q() -> tuple[int, ...]:
    """Queries per tile: beside tensor memory also too few to go through it."""
    return (32, 64, 128) if _has_tensor_memory() else (64, 128)


_MOST_KEYS_AS_ONE = 128
KERNELS = {
    "forward": Kernel(
        "cross_attention",
        "forward",
        "forward_tiles",
        SHAPES,
        lambda shape: shape.keys,
        _forward,
        _forward_grid,
        lambda group: tiles.forward_tiles(
            group.length,
            group.dim,
            DTYPES[group.dtype],
            biased=False,
            tensor_memory=_has_tensor_memory(),
        ),
    ),
    "columns": Kernel(
        "column_statistics",
        "columns",
        "column_tiles",
        JOINT_SHAPES,
        lambda shape: shape.text,
        _columns,
        _column_grid,
        lambda group: tiles.column_tiles(
            group.dim, DTYPES[group.dtype], tensor_memory=_has_tensor_memory()
        ),
    ),
    "backward": Kernel(
        "cross_attention",
        "backward",
        "backward_tiles",
        SHAPES,
        lambda shape: shape.keys,
        _backward,
        _backward_grid,
        lambda group: tiles.backward_tiles(
            group.dim, DTYPES[group.dtype], tensor_memory=_has_tensor_memory()
        ),
    ),
}

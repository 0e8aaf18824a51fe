"""Who is timed: memattn's backends, plain attention, and what users do today for the statistics.

Every provider is asked for what a processor needs next: the output as (B, Lq, H * D), which the
output projection reads. Whoever writes another layout pays for the copy, as in a pipeline.
"""

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import memattn
from memattn.benchmarks.cases import Case
from memattn.types import Backend

# The first two are memattn's, the others its rivals: attention alone, attention with token mass and
# token entropy, and attention with token mass only.
Kind = Literal["with statistics", "without statistics", "plain", "sums", "mass"]
_SUMS = {"with statistics": ("token_mass", "token_entropy"), "mass": ("token_mass",)}
_SUMS["sums"] = _SUMS["with statistics"]


class Unavailable(Exception):
    """A rival cannot be timed on a case; the message says why."""


class Attended(NamedTuple):
    """What one call gives.

    Attributes:
        output: [B, Lq, H * D].
        token_mass: [B, H, Lk], or None without statistics.
        token_entropy: The same, or None where only token mass is given.
    """

    output: Tensor
    token_mass: Tensor | None = None
    token_entropy: Tensor | None = None


@dataclass(frozen=True)
class Provider:
    """One way to compute a case.

    Attributes:
        name: As it stands in tables.
        kind: What it gives, and whose it is.
        call: Takes query, key and value.
        sdpa_backend: The one kernel that torch may use, or None for torch's own choice.
    """

    name: str
    kind: Kind
    call: Callable[[Tensor, Tensor, Tensor], Attended]
    sdpa_backend: SDPBackend | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is memattn's."""
        return self.kind in ("with statistics", "without statistics")

    @property
    def sums(self) -> tuple[str, ...]:
        """Which sums over queries it gives, by the names of the fields."""
        return _SUMS.get(self.kind, ())

    def chosen(self) -> contextlib.AbstractContextManager[None]:
        """Holds torch to the provider's kernel. Entered outside the timed call."""
        if self.sdpa_backend is None:
            return contextlib.nullcontext()
        held: contextlib.AbstractContextManager[None] = sdpa_kernel(self.sdpa_backend)
        return held


def for_projection(output: Tensor) -> Tensor:
    """Attention output [B, H, Lq, D] as (B, Lq, H * D): a view if it was laid out for that."""
    return output.transpose(1, 2).flatten(2)


def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> Attended:
    return Attended(for_projection(F.scaled_dot_product_attention(query, key, value)))


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """[B, H, Lq, Lk]; the queries are scaled, which are fewer than the scores."""
    scores: Tensor = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
    return scores


def _softmax_with_sums(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The whole softmax [B, H, Lq, Lk], token mass and token entropy [B, H, Lk].

    By way of the logarithms, which the entropy needs: torch.special.entr takes longer on the CPU.
    """
    logarithms = _scores(query, key).log_softmax(dim=3)
    probs = logarithms.exp()
    return probs, probs.sum(dim=2), -(probs * logarithms).sum(dim=2)


def _eager(query: Tensor, key: Tensor, value: Tensor) -> Attended:
    return Attended(for_projection(_scores(query, key).softmax(dim=3) @ value))


def _eager_with_sums(query: Tensor, key: Tensor, value: Tensor) -> Attended:
    probs, mass, entropy = _softmax_with_sums(query, key)
    return Attended(for_projection(probs @ value), mass, entropy)


def _sdpa_with_sums(query: Tensor, key: Tensor, value: Tensor) -> Attended:
    output = F.scaled_dot_product_attention(query, key, value)
    _, mass, entropy = _softmax_with_sums(query, key)
    return Attended(for_projection(output), mass, entropy)


SDPA = Provider("sdpa", "plain", _sdpa)
_KERNELS = {
    "cpu": (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH),
    "cuda": (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    ),
}
_EAGER = Provider("eager", "plain", _eager)
SUMS = (
    Provider("sdpa_with_sums", "sums", _sdpa_with_sums),
    Provider("eager_with_sums", "sums", _eager_with_sums),
)


def _kernel_name(backend: SDPBackend) -> str:
    return "sdpa_" + backend.name.removesuffix("_ATTENTION").lower()


def plain_attention(device: str) -> tuple[Provider, ...]:
    """Torch's default choice, each of its kernels by itself, and two products with a softmax."""
    return (SDPA, *(kernel(backend) for backend in _KERNELS[device]), _EAGER)


def kernel(backend: SDPBackend) -> Provider:
    """One of torch's kernels."""
    return Provider(_kernel_name(backend), "plain", _sdpa, backend)


def with_colreduce() -> tuple[Provider, ...]:
    """Each of torch's kernels that may be the fastest, and flash-colreduce's token mass beside it.

    Empty where flash-colreduce cannot be imported: `absent` says so.
    """
    if absent("cuda"):
        return ()
    flash_colreduce = importlib.import_module("flash_colreduce").flash_colreduce

    def call(query: Tensor, key: Tensor, value: Tensor) -> Attended:
        output = F.scaled_dot_product_attention(query, key, value)
        try:
            mass = flash_colreduce(query, key, reduction="sum")
        except Exception as error:  # a rival's failure is told, and ends nothing
            raise Unavailable(f"flash-colreduce: {error}".splitlines()[0]) from error
        return Attended(for_projection(output), mass)

    return tuple(
        Provider(f"{_kernel_name(backend)}_with_colreduce", "mass", call, backend)
        for backend in _KERNELS["cuda"]
        if backend != SDPBackend.MATH
    )


def absent(device: str) -> dict[str, str]:
    """Rivals that are to take part on a device and cannot be imported, and why."""
    if device == "cpu":  # it takes CUDA tensors only
        return {}
    try:
        importlib.import_module("flash_colreduce")
    except ImportError as error:
        return {"flash-colreduce": f"it could not be imported ({error})"}
    return {}


def with_statistics(backend: str) -> Provider:
    """The public op on one backend, with statistics."""
    name = cast(Backend, backend)

    def call(query: Tensor, key: Tensor, value: Tensor) -> Attended:
        result = memattn.cross_attention(query, key, value, backend=name)
        return Attended(for_projection(result.output), result.token_mass, result.token_entropy)

    return Provider(f"memattn_{backend}", "with statistics", call)


def without_statistics(backend: str) -> Provider:
    """The public op on one backend, without statistics."""
    name = cast(Backend, backend)

    def call(query: Tensor, key: Tensor, value: Tensor) -> Attended:
        result = memattn.cross_attention(query, key, value, statistics=False, backend=name)
        return Attended(for_projection(result.output))

    return Provider(f"memattn_{backend}_without", "without statistics", call)


def backends(case: Case) -> dict[str, str | None]:
    """What `memattn.explain` says of a case: by backend, why it cannot run it, or None."""
    shape = case.shape

    def empty(length: int) -> Tensor:
        size = (shape.batch, length, shape.heads, shape.dim)
        return torch.empty(size, dtype=case.dtype, device=case.device).transpose(1, 2)

    keys = empty(shape.keys)
    return dict(memattn.explain(empty(shape.queries), keys, keys))


def providers(case: Case) -> list[Provider]:
    """Everybody for a case: memattn's backends that can run it, and their rivals."""
    able = [name for name, reason in backends(case).items() if reason is None]
    ours = [make(name) for name in able for make in (with_statistics, without_statistics)]
    colreduce = with_colreduce() if case.device == "cuda" else ()
    return [*ours, *plain_attention(case.device), *SUMS, *colreduce]

"""Which backend runs a call: the first in the table that can, or the one that was named."""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from memattn import _env
from memattn.errors import UnsupportedBackendError
from memattn.ops import torch_library
from memattn.ops.contract import checked_request
from memattn.types import CrossAttentionRequest, CrossAttentionResult

BACKENDS = ("cuda", "triton", "cpu", "reference")  # in order of preference


class _Arm(NamedTuple):
    """One backend's functions; without `forward`, `why_not` says why."""

    why_not: Callable[[CrossAttentionRequest], str | None]
    beats_torch: Callable[[CrossAttentionRequest], bool]
    forward: Callable[[CrossAttentionRequest], CrossAttentionResult] | None


_arms: dict[str, _Arm] = {}
_loading = threading.Lock()


def run(request: CrossAttentionRequest, backend: str) -> CrossAttentionResult:
    """Run a checked request on the named backend, or on the one that `auto` chooses."""
    name = _env.BACKEND if backend == "auto" else backend
    if name == "auto":
        name = next(name for name in BACKENDS if _is_chosen(name, request))
    elif name not in BACKENDS:
        source = "MEMATTN_BACKEND" if backend == "auto" else "backend"
        choices = ", ".join(("auto", *BACKENDS))
        raise ValueError(f"{source}: got {name!r}, expected one of {choices}")
    else:
        reason = _why_not(name, request)
        if reason is not None:
            raise UnsupportedBackendError(f"backend {name!r} cannot run this call: {reason}")
    forward = _arms[name].forward
    assert forward is not None
    return forward(request)


def explain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None = None,
    begin_scale: Tensor | None = None,
    token: Tensor | None = None,
    scale: float | None = None,
    statistics: bool = True,
) -> tuple[tuple[str, str | None], ...]:
    """Say which backends can run a call of `cross_attention`, and why the others cannot.

    Args:
        query: As for `cross_attention`, like all that follow.
        key: [B, H, Lk, D].
        value: [B, H, Lk, D].
        key_bias: [B, Lk] or None.
        begin_scale: [B] or None.
        token: [B] or None.
        scale: A float or None.
        statistics: Whether statistics are wanted.

    Returns:
        A pair (backend, reason) for each backend in order of preference; reason is None if it can.

    Raises:
        TypeError: If an argument has the wrong type or dtype.
        ValueError: If an argument has the wrong shape, device or value.
    """
    request = checked_request(
        query,
        key,
        value,
        key_bias=key_bias,
        begin_scale=begin_scale,
        token=token,
        scale=scale,
        statistics=statistics,
    )
    return tuple((name, _why_not(name, request)) for name in BACKENDS)


def _is_chosen(backend: str, request: CrossAttentionRequest) -> bool:
    """Whether a backend can run a request and, if torch's own attention can too, is faster."""
    if _why_not(backend, request) is not None:
        return False
    if request.statistics or request.token is not None or request.begin_scale is not None:
        return True
    return _arms[backend].beats_torch(request)


def _why_not(backend: str, request: CrossAttentionRequest) -> str | None:
    _load(backend)
    return _arms[backend].why_not(request)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _load(backend: str) -> None:
    """Import a backend when it is first asked for, by one thread."""
    if backend in _arms:
        return
    with _loading:
        if backend not in _arms:
            _arms[backend] = _loaded(backend)


def _loaded(backend: str) -> _Arm:
    """A backend's functions; an import that fails leaves its sentence behind."""
    package = f"memattn.kernels.{backend}"
    if importlib.util.find_spec(package) is None:
        return _unavailable(f"this installation of memattn has no {backend} kernels")
    if backend == "reference":
        module = importlib.import_module(f"{package}.cross_attention")
        return _Arm(module.why_not, lambda request: True, module.forward)  # it calls torch's own
    op = torch_library.register(backend)
    try:
        module = importlib.import_module(f"{package}.cross_attention")
    except ImportError as error:
        if (error.name or "").split(".")[0] == "memattn":
            raise  # a broken memattn is not a missing optional package
        return _unavailable(f"its kernels could not be imported ({error})")
    return _Arm(
        lambda request: op.why_not(request) or module.why_not(request),
        module.beats_torch,
        op.forward,
    )


def _unavailable(reason: str) -> _Arm:
    return _Arm(lambda request: reason, lambda request: False, None)

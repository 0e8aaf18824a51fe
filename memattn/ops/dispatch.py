"""Which backend runs a call: the first in the table that can, or the one that was named."""

import importlib
import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from memattn import _env
from memattn.errors import UnsupportedBackendError
from memattn.ops import torch_library
from memattn.ops.contract import checked_request
from memattn.types import CrossAttentionRequest, CrossAttentionResult

BACKENDS = ("cuda", "triton", "cpu", "reference")  # in order of preference


class _Arm:
    """One backend's two functions once it is loaded; without `forward`, `why_not` says why."""

    why_not: Callable[[CrossAttentionRequest], str | None] | None = None
    forward: Callable[[CrossAttentionRequest], CrossAttentionResult] | None = None


_arms = {name: _Arm() for name in BACKENDS}


def run(request: CrossAttentionRequest, backend: str) -> CrossAttentionResult:
    """Run a checked request on the named backend, or on the first that can."""
    name = _env.BACKEND if backend == "auto" else backend
    if name == "auto":
        name = next(name for name in BACKENDS if _why_not(name, request) is None)
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


def _why_not(backend: str, request: CrossAttentionRequest) -> str | None:
    _load(backend)
    why_not = _arms[backend].why_not
    assert why_not is not None
    return why_not(request)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _load(backend: str) -> None:
    """Import a backend when it is first asked; an import that fails leaves its sentence behind."""
    arm = _arms[backend]
    if arm.why_not is not None:
        return
    package = f"memattn.kernels.{backend}"
    if importlib.util.find_spec(package) is None:
        arm.why_not = _unavailable(f"this installation of memattn has no {backend} kernels")
        return
    if backend == "reference":
        module = importlib.import_module(f"{package}.cross_attention")
        arm.why_not, arm.forward = module.why_not, module.forward
        return
    op = torch_library.register(backend)
    try:
        module = importlib.import_module(f"{package}.cross_attention")
    except ImportError as error:
        if (error.name or "").split(".")[0] == "memattn":
            raise  # a broken memattn is not a missing optional package
        arm.why_not = _unavailable(f"its kernels could not be imported ({error})")
        return
    arm.why_not = lambda request: op.why_not(request) or module.why_not(request)
    arm.forward = op.forward


def _unavailable(reason: str) -> Callable[[CrossAttentionRequest], str]:
    return lambda request: reason

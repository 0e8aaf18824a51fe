"""Which backend runs a call: the first in the table that can, or the one that was named."""

import importlib
import importlib.util
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from memattn import _env
from memattn.errors import UnsupportedBackendError

BACKENDS = ("cuda", "triton", "cpu", "reference")  # in order of preference

_loading = threading.Lock()

Request = TypeVar("Request")
Result = TypeVar("Result")
_Request = TypeVar("_Request", contravariant=True)
_Result = TypeVar("_Result", covariant=True)


class CompiledOp(Protocol[_Request, _Result]):
    """The op of one operation on one compiled backend, called with a request."""

    def why_not(self, request: _Request) -> str | None:
        """Say why no compiled backend can run a request, or None."""

    def forward(self, request: _Request) -> _Result:
        """Run the request."""


class _Functions(NamedTuple):
    """What one backend has for an operation; without `forward`, `why_not` says why."""

    why_not: Callable[[Any], str | None]
    beats_torch: Callable[[Any], bool]
    forward: Callable[[Any], Any] | None


@dataclass
class _Arm:
    """A backend of an operation, empty until it is first asked for.

    It is there from the start, because torch.compile looks at a dictionary once: what is put there
    while it traces it does not see.
    """

    functions: _Functions | None = None


@dataclass(frozen=True)
class Operation(Generic[Request, Result]):
    """What tells one public operation from another.

    Attributes:
        name: That of its modules, `memattn.kernels.<backend>.<name>`.
        register: Defines the op of a compiled backend.
        torch_has: Whether torch's own functions do a call too; its modules then have
            `beats_torch`. None for an operation that torch does not have at all.
        also_needs: Another backend without which one cannot run a request, or None.
    """

    name: str
    register: Callable[[str], CompiledOp[Request, Result]]
    torch_has: Callable[[Request], bool] | None = None
    also_needs: Callable[[str, Request], str | None] = lambda backend, request: None
    _arms: dict[str, _Arm] = field(default_factory=lambda: {name: _Arm() for name in BACKENDS})

    def functions(self, backend: str) -> _Functions:
        """A backend's functions, imported if they were not."""
        _load(self, backend)
        functions = self._arms[backend].functions
        assert functions is not None
        return functions


def run(operation: Operation[Request, Result], request: Request, backend: str) -> Result:
    """Run a checked request on the named backend, or on the one that `auto` chooses."""
    name = _env.BACKEND if backend == "auto" else backend
    if name == "auto":
        name = next(name for name in BACKENDS if _is_chosen(operation, name, request))
    elif name not in BACKENDS:
        source = "MEMATTN_BACKEND" if backend == "auto" else "backend"
        choices = ", ".join(("auto", *BACKENDS))
        raise ValueError(f"{source}: got {name!r}, expected one of {choices}")
    else:
        reason = _why_not(operation, name, request)
        if reason is not None:
            raise UnsupportedBackendError(f"backend {name!r} cannot run this call: {reason}")
    forward: Callable[[Request], Result] | None = operation.functions(name).forward
    assert forward is not None
    return forward(request)


def reasons(
    operation: Operation[Request, Result], request: Request
) -> tuple[tuple[str, str | None], ...]:
    """Each backend in order of preference, and why it cannot run a request, or None."""
    return tuple((name, _why_not(operation, name, request)) for name in BACKENDS)


def _is_chosen(operation: Operation[Request, Result], backend: str, request: Request) -> bool:
    """Whether a backend can run a request and, if torch's own functions can too, is faster."""
    if _why_not(operation, backend, request) is not None:
        return False
    if operation.torch_has is None or not operation.torch_has(request):
        return True
    return operation.functions(backend).beats_torch(request)


def _why_not(operation: Operation[Request, Result], backend: str, request: Request) -> str | None:
    reason = operation.functions(backend).why_not(request)
    if reason is not None:
        return reason
    other = operation.also_needs(backend, request)
    if other is None:
        return None
    reason = _why_not(operation, other, request)
    return None if reason is None else f"its gradients are those of {other}: {reason}"


def _load(operation: Operation[Request, Result], backend: str) -> None:
    """Import a backend's functions when they are first asked for, by one thread."""
    arm = operation._arms[backend]
    if arm.functions is None:
        with _loading:
            if arm.functions is None:
                arm.functions = _loaded(operation, backend)


# torch.compile runs it while it traces. This is all that torch.compiler.assume_constant_result does
# once it has imported torch._dynamo, and with that triton, for callers who compile nothing.
_load._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _loaded(operation: Operation[Request, Result], backend: str) -> _Functions:
    """A backend's functions; an import that fails leaves its sentence behind."""
    package = f"memattn.kernels.{backend}"
    if importlib.util.find_spec(package) is None:
        return _unavailable(f"this installation of memattn has no {backend} kernels")
    if importlib.util.find_spec(f"{package}.{operation.name}") is None:
        return _unavailable(f"it has no kernel for {operation.name}")
    if backend == "reference":
        module = importlib.import_module(f"{package}.{operation.name}")
        return _Functions(
            module.why_not, lambda request: True, module.forward
        )  # it calls torch's own
    op = operation.register(backend)
    try:
        module = importlib.import_module(f"{package}.{operation.name}")
    except ImportError as error:
        if (error.name or "").split(".")[0] == "memattn":
            raise  # a broken memattn is not a missing optional package
        return _unavailable(f"its kernels could not be imported ({error})")
    return _Functions(
        lambda request: op.why_not(request) or module.why_not(request),
        module.beats_torch if operation.torch_has else lambda request: True,
        op.forward,
    )


def _unavailable(reason: str) -> _Functions:
    return _Functions(lambda request: reason, lambda request: False, None)

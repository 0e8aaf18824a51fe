"""Runs code before and after every call of a denoiser, compiled or not."""

from collections.abc import Callable
from typing import Any

from torch import nn

Before = Callable[[tuple[Any, ...], dict[str, Any]], None]
After = Callable[[tuple[Any, ...], dict[str, Any], Any], None]


class CallHooks:
    """Hooks on the very object that is called.

    Hooks on a module, or on the wrapper of `torch.compile(module)`, run outside the compiled code.
    A module compiled in place by `module.compile()` traces its hooks, or skips them without a
    word, so there its compiled call is wrapped instead.

    Args:
        denoiser: What the pipeline calls.
        before: Called with the call's positional and keyword arguments.
        after: Called with the arguments and the output.
    """

    def __init__(self, denoiser: nn.Module, before: Before, after: After) -> None:
        self._denoiser = denoiser
        self._watching = True
        self._compiled = denoiser._compiled_call_impl
        if self._compiled is not None:
            self._around = self._wrapped(self._compiled, before, after)
            denoiser._compiled_call_impl = self._around
            self._handles = []
            return
        self._handles = [
            denoiser.register_forward_pre_hook(
                lambda _, args, kwargs: before(args, kwargs), with_kwargs=True
            ),
            denoiser.register_forward_hook(
                lambda _, args, kwargs, output: after(args, kwargs, output), with_kwargs=True
            ),
        ]

    def remove(self) -> None:
        """Leave the denoiser as it was; what somebody has wrapped around meanwhile stays theirs."""
        self._watching = False
        if self._compiled is not None and self._denoiser._compiled_call_impl is self._around:
            self._denoiser._compiled_call_impl = self._compiled
        for handle in self._handles:
            handle.remove()

    def _wrapped(
        self, compiled: Callable[..., Any], before: Before, after: After
    ) -> Callable[..., Any]:
        """The compiled call with `before` and `after` around it while the denoiser is watched."""

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the denoiser takes)
            if not self._watching:
                return compiled(*args, **kwargs)
            before(args, kwargs)
            output = compiled(*args, **kwargs)
            after(args, kwargs, output)
            return output

        return call

"""Watch an optimizer: inspect the gradients before each step, and note whether it has stepped."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from prunus.errors import TrainingError

IDLE = 1000  # calls of step() without an optimizer step; gradients are accumulated over fewer


class OptimizerWatch:
    """Call `before(scale)` once per step, between its gradients and its update of the weights.

    A step that `torch.amp.GradScaler` skips does not count. If a closure computes the gradients, as Lightning's does,
    `before` is called only after the closure has run for the first time.

    Attributes:
        stepped: the optimizer has stepped since the last `take()`.
    """

    def __init__(self, optimizer: Optimizer, before: Callable[[float], None], first: Callable[[], None]) -> None:
        """Watch `optimizer`; `first` is called after its first step."""
        self._before, self._first = before, first
        self._seen = self.stepped = self._checked = False
        self._idle, self._name = 0, type(optimizer).__name__
        self._handles: tuple[Any, ...] = (
            optimizer.register_step_pre_hook(self._on_step),
            optimizer.register_step_post_hook(self._on_stepped),
        )

    def take(self) -> bool:
        """Return whether the optimizer has stepped since the last call.

        Raises:
            TrainingError: it has not stepped for very many calls.
        """
        stepped, self.stepped = self.stepped, False
        self._idle = 0 if stepped or not self._handles else self._idle + 1
        if self._idle > IDLE:
            raise TrainingError(
                f"step() was called {IDLE} times and the {self._name} that the Shrinker was given has not stepped: the "
                "network is trained by another optimizer. Make the Shrinker with the one that trains, after the "
                "trainer has made it"
            )
        return stepped

    def close(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self._handles = ()

    def _on_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._seen = False
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)  # args[0] is the optimizer
        if not callable(closure):
            self._look(optimizer)
            return None
        observed = functools.partial(self._call, optimizer, closure)
        if "closure" in kwargs:
            return args, {**kwargs, "closure": observed}
        return (args[0], observed, *args[2:]), kwargs

    def _call(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Any:
        result = closure()
        self._look(optimizer)
        return result

    def _look(self, optimizer: Optimizer) -> None:
        if not self._seen and not _is_skipped(optimizer):
            self._seen = True
            scale = getattr(optimizer, "grad_scale", None)
            self._before(1.0 if scale is None else float(scale))

    def _on_stepped(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.stepped = self.stepped or self._seen
        if self._seen and not self._checked:
            self._checked = True
            self._first()


def _is_skipped(optimizer: Optimizer) -> bool:
    """Whether a GradScaler has signalled a non-finite gradient to a fused optimizer, which then skips its step."""
    found = getattr(optimizer, "found_inf", None)
    return isinstance(found, torch.Tensor) and bool(found.item())

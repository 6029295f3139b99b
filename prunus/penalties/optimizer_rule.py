"""The optimizer's rule: the step size and metric that a proximal step needs to minimise loss + penalty.

Where training has converged the gradient g is constant, the optimizer moves theta to theta - t g / d, and the proximal
step must undo that move. It therefore takes its size t and its metric d from the optimizer; u is the size for momentum:

                            t               d                    u
    SGD                     lr              1                    none
    SGD, momentum           lr              1                    lr
    SGD with Nesterov, mu   lr * (1 + mu)   1                    lr * (1 + mu)
    SGD, dampening c        lr * (1 - c)    1                    lr
    Adam, AdamW             lr              sqrt(v) + epsilon    none

SGD's momentum must include the proximal step: (theta before - theta after) / u is added to the buffer. Otherwise the
momentum carries the gradient 1 / (1 - mu) times as far as the penalty, which then acts at (1 - mu) of its strength. mu,
c and epsilon are those of theta's parameter group. Where they differ among parameters that are shrunk together, t is lr
and d is lr / t of each parameter: the same step, expressed as a metric.

With Adam the Euclidean step would compare lambda with gradients of size one (Yun et al., "Adaptive proximal gradient
methods for structured neural networks", NeurIPS 2021). A parameter that the optimizer does not hold, where its
groups differ, has t = lr, d = 1. So has every parameter under optimizers whose rule is not known here (NAdam, RAdam,
Lion, LAMB, ...), with a warning: the step is then plain, and the strength does not compare with the gradient.
"""

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from prunus.modules.optimizers import unwrapped

MOMENTA = ("momentum_buffer", "exp_avg")


class Step(NamedTuple):
    """How far a parameter moves under a constant gradient, per learning rate: t, and u for its momentum."""

    factor: float = 1.0
    momentum_factor: float = 1.0


class OptimizerRule:
    """The optimizer's step under a constant gradient, per parameter; if None: t = lr, d = 1, no momentum."""

    def __init__(self, optimizer: Optimizer | None) -> None:
        self._optimizer = optimizer = unwrapped(optimizer)
        if optimizer is not None and not isinstance(optimizer, SGD | Adam):
            _warn_of_plain_steps(type(optimizer))  # type: ignore[arg-type]
        self._groups = parameter_groups(optimizer) if optimizer is not None else {}
        steps = {_step(group) for group in optimizer.param_groups} if isinstance(optimizer, SGD) else {Step()}
        self._otherwise = next(iter(steps)) if len(steps) == 1 else Step()
        self._adam = optimizer if isinstance(optimizer, Adam) else None  # AdamW is a subclass
        self.has_momentum = isinstance(optimizer, SGD) and any(group["momentum"] for group in optimizer.param_groups)

    def step(self, parameter: Tensor) -> Step:
        """Return how far a parameter moves, per learning rate."""
        group = self._groups.get(id(parameter))
        return self._otherwise if group is None or not isinstance(self._optimizer, SGD) else _step(group)

    def common(self, parameters: Iterable[Tensor]) -> tuple[Step, Callable[[Tensor], Tensor] | None]:
        """Return the step that the parameters share, and the metric d in which they share it; None: d = 1."""
        if self._adam is not None:
            return Step(), self.metric
        steps = {self.step(parameter) for parameter in parameters}
        return (next(iter(steps), Step()), None) if len(steps) <= 1 else (Step(), self.metric)

    def metric(self, parameter: Tensor) -> Tensor:
        """Return d of a parameter, of the parameter's shape, where t is the learning rate."""
        if self._adam is not None:
            return _adam_metric(self._adam, parameter, self._groups.get(id(parameter), {}))
        # With dampening 1 no gradient has an effect: t is 0, and there is no move to undo.
        return torch.full_like(parameter, 1 / max(self.step(parameter).factor, 1e-12), requires_grad=False)

    def buffer(self, parameter: Tensor) -> Tensor | None:
        """Return the momentum that must include the proximal step, or None."""
        return _momentum(self._optimizer, parameter, "momentum_buffer") if isinstance(self._optimizer, SGD) else None

    def copies(self, parameters: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return (parameter, copy of it) for each parameter whose momentum must include the coming proximal step."""
        return [(each, each.clone()) for each in parameters if self.buffer(each) is not None]

    def update_momenta_(self, copies: list[tuple[Tensor, Tensor]], step_size: float) -> None:
        """Add to the momenta the amount that proximal steps have subtracted since `copies`."""
        for parameter, before in copies:
            buffer = self.buffer(parameter)
            if buffer is not None and step_size > 0:
                buffer.add_(before - parameter, alpha=1 / (step_size * self.step(parameter).momentum_factor))


@functools.cache
def _warn_of_plain_steps(kind: type[Optimizer]) -> None:
    """Warn once that the rule of an optimizer is not known."""
    warnings.warn(
        f"proximal steps follow the rules of SGD, Adam and AdamW; {kind.__name__}'s is not known, so plain steps of "
        "the learning rate's size are taken, whose strength is not comparable. Train with one of the three, choose "
        "the strength for this one and set coupled=False, or let prunus.Shrinker reach a budget: its pressure is the "
        "same under every optimizer",
        stacklevel=4,
    )


def parameter_groups(optimizer: Optimizer) -> dict[int, dict[str, Any]]:
    """Return the parameter group that holds each parameter, by the parameter's id."""
    return {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}


def _step(group: dict[str, Any]) -> Step:
    """Return the step of a parameter group of SGD."""
    momentum = float(group["momentum"])
    if momentum == 0:
        return Step()
    if group["nesterov"]:
        return Step(1 + momentum, 1 + momentum)
    return Step(1 - float(group["dampening"]), 1.0)


def _momentum(optimizer: Optimizer, parameter: Tensor, name: str) -> Tensor | None:
    found: Tensor | None = optimizer.state.get(parameter, {}).get(name)
    return found


def momenta(optimizer: Optimizer) -> list[Callable[[Tensor], Tensor | None]]:
    """Return a function per kind of momentum: parameter -> its buffer or None."""
    return [lambda parameter, name=name: _momentum(optimizer, parameter, name) for name in MOMENTA]  # type: ignore[misc]


def _adam_metric(optimizer: Adam, parameter: Tensor, group: dict[str, Any]) -> Tensor:
    """Return sqrt(v / (1 - beta2^k)) + epsilon after k steps; 1 for a parameter that has not been trained yet."""
    state = optimizer.state.get(parameter, {})
    second = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    if second is None:
        return torch.ones_like(parameter, requires_grad=False)
    correction = 1 - float(group["betas"][1]) ** float(state["step"])
    root: Tensor = (second / correction).sqrt() + group["eps"]
    return root

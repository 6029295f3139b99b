"""How an optimizer moves a parameter, and what a proximal step must take from it to minimise loss + penalty.

Where training has come to rest the gradient g is constant, the optimizer moves theta to theta - t g / d, and the
proximal step must take it back. So its size and its metric are those of the optimizer:

    SGD                     t = lr                 d = 1
    SGD with Nesterov, mu   t = lr * (1 + mu)      d = 1
    SGD, dampening c        t = lr * (1 - c)       d = 1
    Adam, AdamW             t = lr                 d = sqrt(v) + epsilon, element by element

and SGD's momentum must feel the proximal step: the buffer takes (theta before - theta after) / t. Else the momentum
carries the gradient 1 / (1 - mu) times as far as the penalty, and the penalty acts at (1 - mu) of its strength.
With Adam the Euclidean step would compare lambda with gradients of size one (Yun et al., "Adaptive proximal gradient
methods for structured neural networks", NeurIPS 2021). Of other optimizers nothing is assumed: t = lr, d = 1.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

MOMENTA = ("momentum_buffer", "exp_avg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """The optimizer's step for a constant gradient."""

    factor: float = 1.0  # t over the learning rate
    metric: Callable[[Tensor], Tensor] | None = None  # d, of the parameter's shape; None: 1
    buffer: Callable[[Tensor], Tensor | None] | None = None  # the momentum that takes the proximal step


def rule_of(optimizer: Optimizer | None) -> Rule:
    """Return the rule of `optimizer`; the settings of its first parameter group hold for all."""
    if isinstance(optimizer, SGD):
        group = optimizer.param_groups[0]
        momentum = float(group["momentum"])
        if momentum == 0:
            return Rule()
        factor = 1 + momentum if group["nesterov"] else 1 - float(group["dampening"])
        return Rule(factor=factor, buffer=lambda parameter: _momentum(optimizer, parameter, "momentum_buffer"))
    if isinstance(optimizer, Adam):  # AdamW is one
        return Rule(metric=lambda parameter: _adam_metric(optimizer, parameter))
    return Rule()


def _momentum(optimizer: Optimizer, parameter: Tensor, name: str) -> Tensor | None:
    found: Tensor | None = optimizer.state.get(parameter, {}).get(name)
    return found


def momenta(optimizer: Optimizer) -> list[Callable[[Tensor], Tensor | None]]:
    """Return a function for each kind of momentum: parameter to its buffer, None where there is none."""
    return [lambda parameter, name=name: _momentum(optimizer, parameter, name) for name in MOMENTA]  # type: ignore[misc]


def _adam_metric(optimizer: Adam, parameter: Tensor) -> Tensor:
    """sqrt(v / (1 - beta2^k)) + epsilon after k steps; 1 for a parameter that has not been trained yet."""
    state = optimizer.state.get(parameter, {})
    second = state.get("max_exp_avg_sq", state.get("exp_avg_sq"))
    if second is None:
        return torch.ones_like(parameter, requires_grad=False)
    group = next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))
    correction = 1 - float(group["betas"][1]) ** float(state["step"])
    root: Tensor = (second / correction).sqrt() + group["eps"]
    return root

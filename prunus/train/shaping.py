"""Penalties on a network that trains: where it is expanded, they act on the layers that its factors contract to.

A layer of factors computes one kernel W, linear in its last factor L: whatever matrix M turns the units of L, turns
those of W. So a proximal step that makes W' of W is done by L <- M L with M = I + (W' - W) W^+: exactly for every
W' = M W, which group shrinkage (M is diagonal) and singular value thresholding are; else as near as L can come.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.graph import ChannelGroups, trace
from prunus.penalties import BoundPenalty, Penalty
from prunus.penalties.interface import When
from prunus.penalties.matrices import TRANSPOSED, MatrixWeight
from prunus.penalties.rule import momenta
from prunus.surgery import Contract, Factors, apply, contract

Step = Callable[[float, Optimizer | None], Any]
DIAGONAL = 1e-6  # relative: a unit that changed by less than this, but for its length, was scaled


def is_expanded(model: nn.Module) -> bool:
    """Whether a layer of `model` stands expanded."""
    return any(isinstance(module, Factors) and module.origin == "expand" for module in model.modules())


def bind(penalty: Penalty, model: nn.Module, groups: ChannelGroups, inputs: Tensor) -> BoundPenalty:
    """Attach `penalty` to `model`, traced as `groups`; to what it contracts to where it is expanded.

    Raises:
        EditError: a ReLU stands between the factors, so that there is no kernel to penalise.
    """
    return OnContracted(penalty, model, inputs) if is_expanded(model) else penalty.bind(model, groups)


def calibrated(penalty: Penalty, model: nn.Module, inputs: Tensor, step_size: float, steps_per_epoch: int) -> Penalty:
    """Return `penalty` with its strength chosen on `model`, or on what it contracts to."""
    small = apply(contract(model), model) if is_expanded(model) else model
    return penalty.calibrated(small, trace(small, inputs), step_size=step_size, steps_per_epoch=steps_per_epoch)


class OnContracted(BoundPenalty):
    """A penalty on an expanded network: bound to the contracted one, which shares all other parameters with it."""

    def __init__(self, penalty: Penalty, model: nn.Module, inputs: Tensor) -> None:
        self.model = model
        self.edits = [edit for edit in contract(model) if isinstance(edit, Contract)]
        self.small = apply(contract(model), model)
        _share(model, self.small)
        self.bound = penalty.bind(self.small, trace(self.small, inputs))
        self.when = self.bound.when

    def due(self, event: When) -> bool:
        """Whether a proximal step follows such an event."""
        return self.bound.due(event)

    def value(self) -> Tensor:
        """Return r of the contracted network; nothing flows back into the factors."""
        self._contract()
        return self.bound.value().detach()

    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Do the proximal step on the contracted kernels and let the last factors follow."""
        self._around(self.bound.prox_, step_size, optimizer)

    def after_step_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Do the proximal steps that are due after each step."""
        if self.due("step"):
            self._around(self.bound.after_step_, step_size, optimizer)

    def after_epoch_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Do the proximal steps that are due after each epoch."""
        if self.due("epoch"):
            self._around(self.bound.after_epoch_, step_size, optimizer)

    @torch.no_grad()
    def _around(self, step: Step, step_size: float, optimizer: Optimizer | None) -> None:
        self._contract()
        layers = {edit.path: _last(self.small.get_submodule(edit.path)) for edit in self.edits}
        before = {path: [p.clone() for p in layer.parameters()] for path, layer in layers.items()}
        step(step_size, optimizer)
        for path, layer in layers.items():
            _follow_(_last(self.model.get_submodule(path)), layer, before[path], optimizer)

    @torch.no_grad()
    def _contract(self) -> None:
        for edit in self.edits:
            product = _last(edit.successors(self.model)[edit.path])
            for old, new in zip(
                _last(self.small.get_submodule(edit.path)).parameters(), product.parameters(), strict=True
            ):
                old.copy_(new)


def _last(module: nn.Module) -> Any:
    """Return the last layer with a weight: a layer itself, or what stands behind a padding or other factors."""
    return [each for each in module.modules() if getattr(each, "weight", None) is not None][-1]


def _share(model: nn.Module, small: nn.Module) -> None:
    """Give `small` the very parameters and buffers of `model` wherever it has them."""
    for named in (nn.Module.named_parameters, nn.Module.named_buffers):
        own = dict(named(model))
        for path, _ in list(named(small)):
            if path in own:
                parent, _, name = path.rpartition(".")
                setattr(small.get_submodule(parent), name, own[path])


def _follow_(factor: Any, layer: Any, before: list[Tensor], optimizer: Optimizer | None) -> None:
    """Let the last factor do what a proximal step did to the layer that it is contracted to."""
    view, kernel = _matrix(factor), _matrix(layer)
    turn = _turn(kernel.view(before[0]), kernel.view(layer.weight))
    view.set_(_turned(turn, view.view(factor.weight)))
    if factor.bias is not None:
        handed_on = (before[1] - factor.bias).view(view.num_groups, -1, 1)  # by the factors before
        factor.bias.copy_(layer.bias - _turned(turn, handed_on).flatten())
    gone = (kernel.view(layer.weight) == 0).all(-1, keepdim=True)
    for momentum in momenta(optimizer) if optimizer is not None else ():
        for parameter, shape in ((factor.weight, view.view), (factor.bias, lambda b: b.view(*gone.shape))):
            if parameter is not None and (found := momentum(parameter)) is not None:
                shape(found).mul_(~gone)


def _matrix(layer: Any) -> MatrixWeight:
    return MatrixWeight("", layer.weight, getattr(layer, "groups", 1), isinstance(layer, TRANSPOSED))


def _turn(before: Tensor, after: Tensor) -> Tensor:
    """Return M with M before = after, [groups, out, out], or the nearest."""
    old, new = before.double(), after.double()
    lengths = old.square().sum(-1, keepdim=True)
    factors = torch.where(lengths > 0, (old * new).sum(-1, keepdim=True) / lengths, 0.0)
    if bool(((new - factors * old).norm(dim=-1) <= DIAGONAL * lengths.sqrt().squeeze(-1)).all()):
        return torch.diag_embed(factors.squeeze(-1))
    turn: Tensor = torch.eye(old.shape[1], dtype=old.dtype, device=old.device)
    turn = turn + (new - old) @ torch.linalg.pinv(old, rtol=DIAGONAL)
    return turn.masked_fill((new == 0).all(-1, keepdim=True), 0.0)  # a unit that is zero is zero exactly


def _turned(turn: Tensor, rows: Tensor) -> Tensor:
    turned: Tensor = turn @ rows.double()
    return turned.to(rows.dtype)

"""Penalties bound to a network in training: on an expanded layer they act on the kernel that its factors contract to.

The factors of a layer compute one kernel W, linear in the last factor L: applying a matrix M to the output units of L
applies it to those of W. The update L <- M L with M = I + (W' - W) W^+ thus realises a proximal step from W to W',
exactly for every W' = M W, which includes group shrinkage (M is diagonal) and singular value thresholding.

The rest R = W' - M W, which soft thresholding leaves, goes to the middle one of three factors W = L K F where L and F
are 1 x 1 or linear: K <- K + L^+ R F^+, tap by tap, exact where L and F have full rank. With 3 x 3 factors alone
("ck") the step is as close as L allows.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.graph import ChannelGroups, trace
from prunus.modules.kinds import LinearLayer, TransposedConv
from prunus.penalties import BoundPenalty, Penalty
from prunus.penalties.interface import When
from prunus.penalties.matrices import MatrixWeight
from prunus.penalties.optimizer_rule import momenta
from prunus.surgery import ContractLayers, apply, contract
from prunus.surgery.filters import read, stored
from prunus.train.contracted import expanded, last_layer, share_

Step = Callable[[float, Optimizer | None], Any]
ROUNDING = 1e-6  # relative deviation of a unit that counts as rounding


def bind(penalty: Penalty, model: nn.Module, groups: ChannelGroups, inputs: Tensor) -> BoundPenalty:
    """Bind `penalty` to `model`, traced as `groups`, or to the contracted network where `model` is expanded.

    Raises:
        EditError: there is a ReLU between the factors, so that there is no kernel to penalise.
    """
    return ContractedPenalty(penalty, model, inputs) if expanded(model) else penalty.bind(model, groups)


def calibrated(penalty: Penalty, model: nn.Module, inputs: Tensor, step_size: float, steps_per_epoch: int) -> Penalty:
    """Return `penalty` with its strength calibrated on `model`, or on the contracted network."""
    small = apply(contract(model), model) if expanded(model) else model
    return penalty.calibrated(small, trace(small, inputs), step_size=step_size, steps_per_epoch=steps_per_epoch)


class ContractedPenalty(BoundPenalty):
    """A penalty on an expanded network: bound to the contracted one, which shares all other parameters with it."""

    def __init__(self, penalty: Penalty, model: nn.Module, inputs: Tensor) -> None:
        self.model = model
        self.edits = [edit for edit in contract(model) if isinstance(edit, ContractLayers)]
        self.small = apply(contract(model), model)
        share_(model, self.small)
        for edit in self.edits:  # the optimizer trains the factors
            self.small.get_submodule(edit.path).requires_grad_(False)
        self.bound = penalty.bind(self.small, trace(self.small, inputs))
        self.when = self.bound.when

    def due(self, event: When) -> bool:
        """Whether a proximal step follows this event."""
        return self.bound.due(event)

    def value(self) -> Tensor:
        """Return r of the contracted network, without gradients for the factors."""
        self._contract()
        return self.bound.value().detach()

    def prox_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal step on the contracted kernels and update the factors accordingly."""
        self._around(self.bound.prox_, step_size, optimizer)

    def after_step_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal steps that are due after each optimizer step."""
        if self.due("step"):
            self._around(self.bound.after_step_, step_size, optimizer)

    def after_epoch_(self, step_size: float, optimizer: Optimizer | None = None) -> None:
        """Take the proximal steps that are due after each epoch."""
        if self.due("epoch"):
            self._around(self.bound.after_epoch_, step_size, optimizer)

    @torch.no_grad()
    def _around(self, step: Step, step_size: float, optimizer: Optimizer | None) -> None:
        self._contract()
        layers = {edit.path: last_layer(self.small.get_submodule(edit.path)) for edit in self.edits}
        before = {path: [p.clone() for p in layer.parameters()] for path, layer in layers.items()}
        step(step_size, optimizer)
        for edit in self.edits:
            layer, expanded = layers[edit.path], self.model.get_submodule(edit.path)
            kernel, sandwich = _matrix(layer), _is_sandwich(expanded)
            old, new = (kernel.view(weight).double() for weight in (before[edit.path][0], layer.weight))
            scaling, turn = _scaling(old, new), _turn(old, new)
            left = not _leads(turn, old, new)
            # A least-squares M may be large where W is nearly singular; with a middle factor, scaling suffices.
            _follow_(last_layer(expanded), layer, scaling if left and sandwich else turn, before[edit.path], optimizer)
            if left and sandwich:
                _complete_(expanded, layer, self._product(edit))

    @torch.no_grad()
    def _contract(self) -> None:
        for edit in self.edits:
            pairs = zip(
                last_layer(self.small.get_submodule(edit.path)).parameters(),
                self._product(edit).parameters(),
                strict=True,
            )
            for old, new in pairs:
                old.copy_(new)

    def _product(self, edit: ContractLayers) -> Any:
        return last_layer(edit.successors(self.model)[edit.path])


def _follow_(factor: Any, layer: Any, turn: Tensor, before: list[Tensor], optimizer: Optimizer | None) -> None:
    """Apply M to the last factor, and copy the bias and the zero units of the contracted layer."""
    view, kernel = _matrix(factor), _matrix(layer)
    view.set_(_turned(turn, view.view(factor.weight)))
    if factor.bias is not None:
        handed_on = (before[1] - factor.bias).view(view.num_groups, -1, 1)  # the bias from the earlier factors
        factor.bias.copy_(layer.bias - _turned(turn, handed_on).flatten())
    gone = (kernel.view(layer.weight) == 0).all(-1, keepdim=True)
    for momentum in momenta(optimizer) if optimizer is not None else ():
        for parameter, shape in ((factor.weight, view.view), (factor.bias, lambda b: b.view(*gone.shape))):
            if parameter is not None and (found := momentum(parameter)) is not None:
                shape(found).mul_(~gone)


def _is_sandwich(expanded: nn.Module) -> bool:
    """Whether there are three factors, the outer two of which only mix channels."""
    layers = _linear_layers(expanded)
    return len(layers) == 3 and all(layers[end].weight[0, 0].numel() == 1 for end in (0, 2))


def _linear_layers(expanded: nn.Module) -> list[Any]:
    return [module for module in expanded.modules() if isinstance(module, LinearLayer)]


def _complete_(expanded: nn.Module, layer: Any, product: Any) -> None:
    """Add to the middle factor the difference between the kernels of `layer` and `product`, the contracted factors.

    Subtract from the last factor's bias the amount that this adds.
    """
    modules = _linear_layers(expanded)
    first, middle, last = (read(module, "an expanded layer") for module in modules)
    wanted, reached = (read(module, "an expanded layer").weight for module in (layer, product))
    missing = (wanted - reached).reshape(*wanted.shape[:3], -1)  # [groups, out, in, taps]
    inner, outer = (torch.linalg.pinv(part.weight.flatten(2)) for part in (first, last))
    change = torch.einsum("gpo,goit,giq->gpqt", outer, missing, inner)
    weight = middle.weight + change.view_as(middle.weight)
    modules[1].weight.copy_(stored(dataclasses.replace(middle, weight=weight)))
    if first.bias is not None and modules[2].bias is not None:
        added = change.sum(-1) @ first.bias.view(first.groups, -1, 1)
        modules[2].bias.sub_((last.weight.flatten(2) @ added).flatten())


def _matrix(layer: Any) -> MatrixWeight:
    return MatrixWeight("", layer.weight, getattr(layer, "groups", 1), isinstance(layer, TransposedConv))


def _scaling(old: Tensor, new: Tensor) -> Tensor:
    """Return the diagonal M that brings M old closest to new, [groups, out, out]."""
    lengths = old.square().sum(-1)
    return torch.diag_embed(torch.where(lengths > 0, (old * new).sum(-1) / lengths, 0.0))


def _turn(old: Tensor, new: Tensor) -> Tensor:
    """Return M with M old = new, [groups, out, out]: diagonal if that suffices, else by least squares."""
    scaling = _scaling(old, new)
    if _leads(scaling, old, new):
        return scaling
    turn: Tensor = torch.eye(old.shape[1], dtype=old.dtype, device=old.device)
    turn = turn + (new - old) @ torch.linalg.pinv(old, rtol=ROUNDING)
    return turn.masked_fill((new == 0).all(-1, keepdim=True), 0.0)  # a zero unit stays exactly zero


def _leads(turn: Tensor, old: Tensor, new: Tensor) -> bool:
    """Whether M old = new for every unit, up to rounding."""
    return bool(((turn @ old - new).norm(dim=-1) <= ROUNDING * old.norm(dim=-1)).all())


def _turned(turn: Tensor, rows: Tensor) -> Tensor:
    turned: Tensor = turn @ rows.double()
    return turned.to(rows.dtype)

"""Make a network narrower in place: the module, parameters and optimizer stay the same objects, with other tensors.

Everything is prepared on a copy; then tensors, sizes and modules are exchanged one by one, each with a callback that
reverts it, so that an error on the way leaves everything as it was.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import EditError
from prunus.modules.attributes import kept
from prunus.modules.hooks import HOOK_TABLES
from prunus.modules.modes import keep_anew_
from prunus.modules.paths import paths_of
from prunus.modules.tree import leaves
from prunus.surgery.carry import OptimizerContents

_TABLES = {"_parameters", "_buffers", "_modules", *HOOK_TABLES}


def become_(model: nn.Module, small: nn.Module, made_anew: Iterable[str], undo: ExitStack) -> None:
    """Put the tensors, sizes and modules of `small`, an edited copy of `model`, into `model`.

    A parameter or buffer stays the same object, with its hooks; its gradient is dropped where its shape changes.

    Args:
        model: changed in place.
        small: the copy; its tensors belong to `model` afterwards.
        made_anew: paths at which `small` has new modules.
        undo: receives the callbacks that revert each change.
    """
    undo.callback(keep_anew_, model)
    for path in made_anew:
        _replace_(model, path, small.get_submodule(path), undo)
    pairs = [(module, small.get_submodule(path)) for path, module in model.named_modules()]
    seen = set[int]()
    for module, other in pairs:
        for table in ("_parameters", "_buffers"):
            for name, tensor in vars(module)[table].items():
                new = vars(other)[table][name]
                if tensor is not None and tensor is not new and id(tensor) not in seen and tensor.shape != new.shape:
                    seen.add(id(tensor))
                    set_values_(tensor, new.detach(), undo)
        _set_sizes_(module, other, undo)
    keep_anew_(model)


def set_values_(tensor: Tensor, values: Tensor, undo: ExitStack) -> None:
    """Put `values`, of another shape, into `tensor`, a parameter or buffer; drop its gradient."""
    undo.callback(_restore_, tensor, tensor.data, tensor.grad)
    tensor.grad = None
    _reset_(tensor, values)


def _reset_(tensor: Tensor, values: Tensor) -> None:
    """Set the data of `tensor` so that earlier graphs, such as that of a logged loss, stay valid.

    Their AccumulateGrad node expects gradients of the former shape, and a new graph would reuse it: torch makes
    another node only after data of another dtype or device was set.
    """
    if tensor.requires_grad:
        other = torch.float16 if tensor.dtype == torch.float32 else torch.float32  # float64 is not everywhere
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = values


def _restore_(tensor: Tensor, values: Tensor, gradient: Tensor | None) -> None:
    tensor.grad = None
    _reset_(tensor, values)
    tensor.grad = gradient


def _replace_(model: nn.Module, path: str, new: nn.Module, undo: ExitStack) -> None:
    old = model.get_submodule(path)
    inside = set(map(id, old.modules()))
    for place, module in model.named_modules():
        for name, value in kept(module):
            if id(module) not in inside and any(id(leaf) in inside for leaf in leaves(value)):
                raise EditError(
                    f"{place}.{name}".removeprefix(".") + f" refers to {path}, which is replaced, besides the modules "
                    "that torch knows: keep it in an nn.ModuleList or nn.ModuleDict. Nothing is changed"
                )
    for place in paths_of(model, old):
        undo.callback(model.set_submodule, place, old)
        model.set_submodule(place, new)


def _set_sizes_(module: nn.Module, other: nn.Module, undo: ExitStack) -> None:
    """Give `module` the sizes of `other`: whole numbers kept as attributes, alone or in lists, tuples and dicts."""
    for name, value in vars(other).items():
        own = vars(module).get(name)
        if name not in _TABLES and value is not own and _counts(value) and _counts(own) and value != own:
            undo.callback(setattr, module, name, own)
            setattr(module, name, value)


def _counts(value: Any) -> bool:
    """Whether `value` is an int, or a list, tuple or dict of plain values that contains an int."""
    if isinstance(value, list | tuple | dict):
        found = list(leaves(value))
        return all(leaf is None or isinstance(leaf, int | float | str) for leaf in found) and any(
            type(leaf) is int for leaf in found
        )
    return type(value) is int


def refill_(
    optimizer: Optimizer, contents: OptimizerContents, own: Callable[[Tensor], Tensor], undo: ExitStack
) -> None:
    """Put `contents` into `optimizer`, with each parameter replaced by `own(parameter)`.

    Args:
        optimizer: changed in place.
        contents: for the network's copy.
        own: maps a copy's parameter to the network's own.
        undo: receives the reverting callback.
    """
    undo.callback(_put_back_, optimizer, [dict(group) for group in optimizer.param_groups], dict(optimizer.state))
    for parameter, gradient in contents.gradients:
        if own(parameter).grad is None:  # it was cut, and `become_` dropped it
            own(parameter).grad = gradient
    OptimizerContents(
        groups=[[own(parameter) for parameter in parameters] for parameters in contents.groups],
        names=contents.names,
        states={own(parameter): state for parameter, state in contents.states.items()},
        gradients=[],
        kept=contents.kept,
        fresh=contents.fresh,
    ).fill_(optimizer)


def _put_back_(optimizer: Optimizer, groups: list[dict[str, Any]], state: dict[Tensor, Any]) -> None:
    for group, old in zip(optimizer.param_groups, groups, strict=True):
        group.clear()
        group.update(old)
    optimizer.state.clear()
    optimizer.state.update(state)

"""Carry an optimizer over an edit: its parameters, their state and their gradients."""

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import EditError
from prunus.modules.optimizers import unwrapped
from prunus.modules.tree import items
from prunus.surgery.argument_types import checked
from prunus.surgery.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Carried:
    """The parameters whose state `carry_` kept, and those that start with fresh state since an edit replaced them."""

    kept: tuple[str, ...]
    fresh: tuple[str, ...]


@checked
def carry_(plan: Plan, optimizer: Optimizer, model: nn.Module, small: nn.Module) -> Carried:
    """Make `optimizer`, which trains `model`, train `small = apply(plan, model)` as if it always had.

    Each parameter in the optimizer's groups is replaced by the parameter of `small` at the same path. State tensors of
    its shape (momentum, moments) and its gradient are cut like the parameter; scalars (steps) are kept. New parameters
    join the group of those that they replace (a bias joins that of a bias) with fresh state, and groups and names are
    put in the order of `small.parameters()`; new parameters of a layer that was not trained stay outside.

    In a loop of your own, a learning-rate scheduler and a `GradScaler` need no change. Cut an average of the weights by
    the same plan: `ema.module = apply(plan, ema.module)`. Wrap `small` in DistributedDataParallel and `torch.compile`.

    Raises:
        EditError: the optimizer holds a parameter that is not `model`'s, keeps state of another shape, or parameters
            outside of `param_groups` and `state`; or `small` is not `apply(plan, model)`. It is then unchanged.
    """
    optimizer = unwrapped(optimizer)
    contents = carried(plan, optimizer, model, small)
    for target, gradient in contents.gradients:
        target.grad = gradient
    contents.fill_(optimizer)
    return Carried(kept=contents.kept, fresh=contents.fresh)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerContents:
    """The contents of an optimizer after an edit, not yet put into it.

    Attributes:
        groups: the parameters of each group.
        names: their names; None for a group without names.
        states: the state of each parameter.
        gradients: (parameter, gradient).
        kept: paths of the parameters whose state was kept.
        fresh: paths of the parameters that start with fresh state.
    """

    groups: list[list[Tensor]]
    names: list[list[str] | None]
    states: dict[Tensor, dict[str, object]]
    gradients: list[tuple[Tensor, Tensor]]
    kept: tuple[str, ...]
    fresh: tuple[str, ...]

    def fill_(self, optimizer: Optimizer) -> None:
        """Put groups, names and states into `optimizer`."""
        for group, parameters, names in zip(optimizer.param_groups, self.groups, self.names, strict=True):
            group["params"] = parameters
            if names is not None:
                group["param_names"] = names
        optimizer.state.clear()
        optimizer.state.update({parameter: state for parameter, state in self.states.items() if state})


def carried(
    plan: Plan, optimizer: Optimizer, model: nn.Module, small: nn.Module, *, part: bool = False
) -> OptimizerContents:
    """Return the contents of `optimizer` for `small = apply(plan, model)`; see `carry_`.

    Args:
        plan: leads from the network `model` to `small`.
        optimizer: trains `model`; it is not changed.
        model: the network before the edit.
        small: the network after the edit.
        part: the optimizer may also train parameters outside `model`, which stay as they are.

    Raises:
        EditError: as `carry_`.
    """
    _check_held_in_groups(optimizer)
    old_paths = {id(parameter): path for path, parameter in model.named_parameters()}
    new = dict(small.named_parameters(remove_duplicate=False))
    groups, states, gradients = list[list[Tensor]](), dict[Tensor, dict[str, object]](), list[tuple[Tensor, Tensor]]()
    placed, replaced = set[str](), set[str]()
    for group in optimizer.param_groups:
        groups.append([])
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if part and id(parameter) not in old_paths:
                groups[-1].append(parameter)
                states[parameter] = dict(state)
                continue
            path = _path_of(parameter, old_paths)
            if (target := _carried(plan, path, parameter, new)) is None:
                replaced.add(path)
                continue
            gradients += _gradient(plan, path, parameter, target)
            states[target] = _state(plan, path, parameter, target, state)
            groups[-1].append(target)
            placed.add(path)
    made = [path for path, _ in small.named_parameters() if path not in old_paths.values() or path in replaced]
    fresh = _trained(plan, model, made, placed, replaced, new) if made else []
    for path in fresh:
        groups[_nearest(path, new[path], optimizer, old_paths)].append(new[path])
    if fresh:  # the order in an optimizer built for `small`, and so in a checkpoint
        order = {id(parameter): number for number, parameter in enumerate(small.parameters())}
        groups = [sorted(parameters, key=lambda p: order.get(id(p), len(order))) for parameters in groups]
    names, kept = _names(optimizer, old_paths, small, groups), tuple(sorted(placed))
    return OptimizerContents(
        groups=groups, names=names, states=states, gradients=gradients, kept=kept, fresh=tuple(fresh)
    )


def _gradient(plan: Plan, path: str, parameter: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return (target, cut gradient of `parameter`) if there is one; the two networks share no memory."""
    if parameter.grad is None:
        return []
    gradient = _through(plan, path, parameter.grad)
    assert gradient is not None
    return [(target, gradient.clone() if gradient is parameter.grad else gradient)]


def _path_of(parameter: Tensor, old_paths: dict[int, str]) -> str:
    if id(parameter) not in old_paths:
        raise EditError(f"the optimizer holds a parameter of shape {tuple(parameter.shape)} that is not the model's")
    return old_paths[id(parameter)]


def _check_held_in_groups(optimizer: Optimizer) -> None:
    """Refuse an optimizer that keeps parameters outside of its groups and state: it would go on training these."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    seen = {id(optimizer), id(optimizer.state), *map(id, optimizer.param_groups)}
    for name, value in vars(optimizer).items():
        if _holds(value, held, seen):
            raise EditError(
                f"{type(optimizer).__name__} keeps parameters in `{name}` too, where Prunus cannot cut them, so it "
                "would still train the old network: create a new optimizer for the small one"
            )


def _holds(value: Any, held: set[int], seen: set[int]) -> bool:
    """Return whether `value` holds a parameter, at any depth of nested containers and optimizers."""
    if isinstance(value, Tensor):
        return id(value) in held
    if id(value) in seen:
        return False
    seen.add(id(value))
    inside = list(vars(value).items()) if isinstance(value, Optimizer) else items(value) or []
    return any(_holds(part, held, seen) for pair in inside for part in pair)  # a parameter may be a dictionary's key


def _names(
    optimizer: Optimizer, old_paths: dict[int, str], small: nn.Module, groups: list[list[Tensor]]
) -> list[list[str] | None]:
    """Return the names of `groups` in an optimizer of named parameters; a parameter keeps its name if it had one."""
    named = [group for group in optimizer.param_groups if "param_names" in group]
    pairs = [pair for group in named for pair in zip(group["params"], group["param_names"], strict=True)]
    known = {old_paths[id(parameter)]: str(name) for parameter, name in pairs if id(parameter) in old_paths}
    prefix = next((name.removesuffix(path) for path, name in known.items() if name.endswith(path)), "")
    names = {id(parameter): str(name) for parameter, name in pairs}
    names |= {id(parameter): known.get(path, prefix + path) for path, parameter in small.named_parameters()}
    return [
        [names[id(parameter)] for parameter in parameters] if "param_names" in group else None
        for group, parameters in zip(optimizer.param_groups, groups, strict=True)
    ]


def _carried(plan: Plan, path: str, parameter: Tensor, new: dict[str, nn.Parameter]) -> nn.Parameter | None:
    through = _through(plan, path, parameter.detach())
    if through is None:
        return None
    if path not in new:
        raise EditError(f"{path}: the plan keeps it and the small model has none: it is not `apply(plan, model)`")
    if through.shape != new[path].shape:
        raise EditError(
            f"{path}: the plan leads to {tuple(through.shape)}, the small model has {tuple(new[path].shape)}"
        )
    return new[path]


def _through(plan: Plan, path: str, tensor: Tensor) -> Tensor | None:
    result: Tensor | None = tensor
    for edit in plan:
        if result is not None:
            result = edit.carry(path, result)
    return result


def _state(plan: Plan, path: str, old: Tensor, new: Tensor, state: dict[str, object]) -> dict[str, object]:
    carried: dict[str, object] = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and value.shape == old.shape and value.dim():
            value = _through(plan, path, value)
        elif isinstance(value, Tensor) and value.numel() > 1 and old.shape != new.shape:
            raise EditError(
                f"{path}: the optimizer keeps {name!r} of shape {tuple(value.shape)}, which is not the parameter's, "
                "so Prunus cannot cut it: train with another optimizer, or create a new one after the cut"
            )
        carried[name] = value
    return carried


def _trained(
    plan: Plan, model: nn.Module, made: list[str], placed: set[str], replaced: set[str], new: dict[str, nn.Parameter]
) -> list[str]:
    """Return the new parameters `made` that the optimizer trains: each is at least as near to a `replaced` parameter,
    which the optimizer held, as to a replaced one that it did not hold."""
    others = {path: each.detach() for path, each in model.named_parameters() if path not in placed | replaced}
    untrained = [path for path, tensor in others.items() if _through(plan, path, tensor) is None]

    def nearness(path: str, among: Iterable[str]) -> int:
        return max((_common(path, other) for other in among), default=-1)

    return [p for p in made if new[p].requires_grad and nearness(p, replaced) >= nearness(p, untrained)]


def _common(path: str, other: str) -> int:
    """Return the number of leading names that two paths share."""
    pairs = zip(path.split("."), other.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _nearest(path: str, new: Tensor, optimizer: Optimizer, old_paths: dict[int, str]) -> int:
    """Return the number of the group with the parameter most like `path`: the nearest path, then the same name, then
    the same kind (a matrix or a vector)."""

    def likeness(old: Tensor) -> tuple[int, bool, bool]:
        other = old_paths[id(old)]
        same_name = path.rpartition(".")[2] == other.rpartition(".")[2]
        return _common(path.rpartition(".")[0], other), same_name, (new.dim() > 1) == (old.dim() > 1)

    own = [[p for p in group["params"] if id(p) in old_paths] for group in optimizer.param_groups]
    scores = [max(map(likeness, parameters), default=(-1, False, False)) for parameters in own]
    return scores.index(max(scores))

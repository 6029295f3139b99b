"""Checks before a Shrinker begins: each error names the problem and the remedy."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.budget import Budget
from prunus.errors import BudgetError, CheckpointError, TrainingError
from prunus.graph import ChannelGroups
from prunus.modules.copying import copied
from prunus.modules.undisturbed import undisturbed
from prunus.records import EXACT
from prunus.verify import difference

_SHARDED = ("FullyShardedDataParallel", "DeepSpeedEngine", "FSDPModule")


def check_network(model: Any, optimizer: Any) -> None:
    """Refuse wrappers, networks whose parameters are sharded over devices, and an optimizer of another network.

    Raises:
        TrainingError: says what to pass instead.
    """
    if not isinstance(model, nn.Module):
        raise TrainingError(f"Shrinker takes the network, a torch.nn.Module, not {model!r:.80}")
    name = type(model).__name__
    kinds = [kind.__name__ for module in model.modules() for kind in type(module).__mro__]
    sharded = [kind for kind in _SHARDED if kind in kinds]
    sharded += [type(p).__name__ for p in model.parameters() if type(p.data).__name__ == "DTensor"][:1]
    if sharded:
        raise TrainingError(
            f"{name} is wrapped in or sharded by {sharded[0]}, whose processes each hold a part of every tensor, so "
            "that no channel can be cut in one: train with DistributedDataParallel while the network shrinks"
        )
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise TrainingError(
            f"the network is wrapped in {name}: pass what is inside, `model.module`, and after each cut (when step() "
            "returns a record) wrap it again, since the wrapper keeps buffers of the former shapes"
        )
    if name == "OptimizedModule":
        raise TrainingError(
            "the network is compiled (torch.compile): pass the module that was compiled; the compiled one sees its "
            "narrower layers and recompiles by itself"
        )
    _check_optimizer(model, optimizer)


def check_unchanged(model: nn.Module, optimizer: Optimizer, bound: Sequence[Tensor]) -> None:
    """Refuse a network whose parameters are no longer `bound`, those from which its channel groups were read.

    Raises:
        TrainingError: says how many were replaced.
    """
    there = {id(parameter) for parameter in model.parameters()}
    if gone := sum(1 for parameter in bound if id(parameter) not in there):
        raise TrainingError(
            f"{gone} parameters of {type(model).__name__} have been replaced by others since the Shrinker read it: "
            "only the Shrinker may change its layers during training. Make the Shrinker after such changes, or, to "
            "resume from a checkpoint, use its load_state_dict"
        )
    _check_optimizer(model, optimizer)


def check_state(model: nn.Module, optimizer: Optimizer) -> None:
    """Refuse an optimizer whose state, after its first step, differs from its parameters' shapes: it cannot be cut.

    Raises:
        TrainingError: names the state and the parameter.
    """
    for path, parameter in model.named_parameters():
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.numel() > 1 and value.shape != parameter.shape:
                raise TrainingError(
                    f"{type(optimizer).__name__} keeps {name!r} of shape {list(value.shape)} for {path}, of shape "
                    f"{list(parameter.shape)}: Prunus cannot cut it. Train with an optimizer whose state has its "
                    "parameters' shapes, such as SGD, AdamW or RMSprop"
                )


def check_optimizer_is_fresh(model: nn.Module, optimizer: Optimizer) -> None:
    """Refuse an optimizer that already holds the state of a narrower network.

    Raises:
        CheckpointError: says in which order to load.
    """
    try:
        check_state(model, optimizer)
    except TrainingError as error:
        raise CheckpointError(
            "the optimizer holds state of other shapes than the network's: its load_state_dict was called before the "
            "Shrinker's, which makes both narrow. Create network, optimizer and Shrinker again, and load the "
            f"Shrinker's state first ({error})"
        ) from error


def _check_optimizer(model: nn.Module, optimizer: Any) -> None:
    if not isinstance(optimizer, Optimizer):
        several = " (of several, none knows the whole network: make one with parameter groups)"
        raise TrainingError(
            f"Shrinker takes the optimizer, a torch.optim.Optimizer, not {optimizer!r:.60}"
            f"{several if isinstance(optimizer, list | tuple) else ''}"
        )
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = [path for path, parameter in model.named_parameters() if id(parameter) in held]
    if not trained:
        raise TrainingError(
            f"the {type(optimizer).__name__} holds none of the {sum(1 for _ in model.parameters())} parameters of "
            f"{type(model).__name__}: it trains another network, or copies from before a `.to(device)`. Pass the "
            "network and the optimizer made of model.parameters()"
        )


def check_held(model: nn.Module, optimizer: Optimizer, groups: ChannelGroups) -> None:
    """Refuse an optimizer that lacks some of the trained parameters that may be cut: another's state of them
    would keep its shapes.

    Raises:
        TrainingError: names the parameters and the remedy.
    """
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    parameters, removable = (
        dict(model.named_parameters(remove_duplicate=False)),
        {*groups.exact.nonzero().flatten().tolist()},
    )
    others = {
        slot.path: None
        for slot in groups.slots
        if (found := parameters.get(slot.path)) is not None and found.requires_grad and id(found) not in held
        if not removable.isdisjoint(slot.groups.tolist())
    }
    if others:
        raise TrainingError(
            f"the {type(optimizer).__name__} does not hold {len(others)} parameters of {type(model).__name__} that "
            f"require gradients and may be cut, such as {', '.join(list(others)[:3])}: the state that a second "
            "optimizer keeps of them could not follow. Train them with the same optimizer, in a parameter group of "
            "their own, or, if nothing trains them, freeze them with requires_grad_(False)"
        )


def check_budgets(budgets: Sequence[Budget], groups: ChannelGroups, reference: nn.Module | None) -> None:
    """Refuse budgets that the network already meets, and latency shares without a reference network.

    Raises:
        BudgetError: names the cost and the bound, or the missing argument.
    """
    for budget in budgets:
        _check_not_met(budget, groups)
    if len(budgets) > 1 and reference is None and any(budget.latency is not None for budget in budgets):
        raise BudgetError(
            "budgets that are shares of a latency need the network that they are shares of, since this one becomes "
            "narrower: give reference=..., a copy, or latency_ms"
        )


def _check_not_met(budget: Budget, groups: ChannelGroups) -> None:
    """Refuse a budget that is already met, except by a share of exactly 1."""
    bounds = budget.absolute(groups)
    costs = {"macs": groups.macs(), "params": groups.params()}
    given = {kind: bounds[kind] for kind in costs if getattr(budget, kind) not in (None, 1)}
    if given and not budget.is_timed and all(costs[kind] <= bound for kind, bound in given.items()):
        has = ", ".join(f"{costs[kind]:,} {kind}, the budget allows {bound:,.0f}" for kind, bound in given.items())
        raise BudgetError(
            f"the network meets the budget as it is: it has {has}. Name a smaller budget, or train it without a "
            "Shrinker"
        )


def check_follows(small: nn.Module, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a network that does not compute what `small` computes, although it now holds the same tensors and sizes.

    Raises:
        TrainingError: the outputs differ, or the network no longer runs.
    """
    first, second = (copied(each, isolated=True) for each in (small, model))  # copies: the user's hooks do not run
    try:
        with undisturbed(model):
            _, relative = difference(first, second, args, kwargs)
    except (RuntimeError, ValueError) as error:
        text = f"it no longer runs ({str(error).partition(chr(10))[0]})"
    else:
        if relative <= EXACT["float32"]:
            return
        text = f"its outputs differ by {relative:.1e} from those of its narrower copy"
    raise TrainingError(
        f"{type(model).__name__} does not follow in place: {text}. Its code refers to layers, tensors or sizes in a "
        "way that torch does not know: keep them as modules, buffers, and numbers, alone or in lists and tuples. The "
        "network and its optimizer are as they were"
    )


def average_of(copy: Any, model: nn.Module) -> nn.Module:
    """Return the network in `copy` with the shapes of `model`: `copy`, or the `module` of an average.

    Raises:
        TrainingError: there is none; names the tensors that differ.
    """
    own = _shapes(model)
    inner = getattr(copy, "module", None)
    for found in (copy, inner):
        if isinstance(found, nn.Module) and found is not model and _shapes(found) == own:
            return found
    shown = inner if isinstance(inner, nn.Module) else copy
    if not isinstance(shown, nn.Module):
        raise TrainingError(f"follow takes a copy of the network (an average of its weights), not {copy!r:.80}")
    if shown is model:
        raise TrainingError("follow takes a copy of the network, not the network itself")
    there = _shapes(shown)
    names = [name for name in dict.fromkeys((*own, *there)) if own.get(name) != there.get(name)]
    listed = "; ".join(f"{n} is {there.get(n, 'missing')} there, {own.get(n, 'missing')} here" for n in names[:3])
    raise TrainingError(
        f"follow: the {type(shown).__name__} is not a copy of the network: {listed}; {len(names)} tensors differ. "
        "Make the copy of the network as it is now, or let it follow from the beginning"
    )


def _shapes(model: nn.Module) -> dict[str, list[int]]:
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: list(tensor.shape) for name, tensor in tensors.items()}

"""Check the content of a checkpoint before use: an error names the entry and what it should be.

The digests only show that a file is unchanged, not who wrote it. So no content is used before it is known to be
what `training_state.save` writes.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from prunus.errors import CheckpointError, EditError
from prunus.records.typed import typed
from prunus.surgery import Plan
from prunus.train.checkpoint import Checkpoint
from prunus.train.tree import unflatten

STATE_KEYS = ("plan", "progress", "target", "tree")
ADAM = {"step", "exp_avg", "exp_avg_sq"}
MERSENNE = 624  # words of the generator's state


def content_of(found: Checkpoint) -> dict[str, Any]:
    """Return a checkpoint's `state`, which must have the four parts that a training writes.

    Raises:
        CheckpointError: a part is missing.
    """
    state: Any = found.state
    missing = [key for key in STATE_KEYS if key not in state] if isinstance(state, dict) else list(STATE_KEYS)
    if missing:
        raise _misfit(found, missing[0], "is missing: it holds no state of a training")
    checked: dict[str, Any] = state
    return checked


def typed_part(found: Checkpoint, hint: Any, key: str) -> Any:
    """Return the part `key` of a checkpoint's state as the dataclass `hint`.

    Raises:
        CheckpointError: a field is missing, unknown, or of another type; names its path.
    """
    try:
        return typed(hint, content_of(found)[key], key)
    except ValueError as error:
        raise CheckpointError(f"{found.path}: {error}; {_REMEDY}") from error


def plan_of(found: Checkpoint) -> Plan:
    """Return the plan that makes the network of a checkpoint.

    Raises:
        CheckpointError: the plan is invalid.
    """
    try:
        return Plan.from_json(content_of(found)["plan"])
    except EditError as error:
        raise CheckpointError(f"{found.path}: plan: {error}; {_REMEDY}") from error


def tree_of(found: Checkpoint) -> dict[str, Any]:
    """Return the tree of tensors and related values, in the form that `training_state.save` gave it.

    Raises:
        CheckpointError: an entry is invalid; names its path.
    """
    tree = unflatten(found.tensors, content_of(found)["tree"])
    if isinstance(tree, dict) and "processes" not in tree:  # format 1 supported one process
        loss = typed_part(found, dict[str, Any], "progress").get("loss", 0.0)
        tree = {**tree, "processes": [{"random": tree.get("random"), "loss": loss}]}
    for place, value, kind in _expected(tree if isinstance(tree, dict) else {}):
        if not isinstance(value, kind):
            raise _misfit(found, place, f"is a {type(value).__name__}, not a {kind.__name__}")
    for name in ("importance", "pressed"):
        if tree[name].dim() != 1:
            raise _misfit(found, f"tree.{name}", f"has {tree[name].dim()} dimensions, not one")
    for number, own in enumerate(tree["processes"]):
        if problem := _random_problem(own["random"]):
            raise _misfit(found, f"tree.processes[{number}].random.{problem}", "is not the state of a random generator")
    result: dict[str, Any] = tree
    return result


def _expected(tree: dict[Any, Any]) -> Any:
    """Yield (path, value, type) of every entry that a tree must hold, containers before their parts."""
    kinds = {"model": dict, "optimizer": dict, "importance": Tensor, "pressed": Tensor, "processes": list}
    yield from ((f"tree.{name}", tree.get(name), kind) for name, kind in kinds.items())
    yield from ((f"tree.model.{name}", tensor, Tensor) for name, tensor in tree["model"].items())
    if tree.get("ema") is not None:
        yield "tree.ema", tree["ema"], dict
        yield from ((f"tree.ema.{name}", tensor, Tensor) for name, tensor in tree["ema"].items())
    optimizer = tree["optimizer"]
    yield "tree.optimizer.state", optimizer.get("state"), dict
    yield from ((f"tree.optimizer.state.{index}", state, dict) for index, state in optimizer["state"].items())
    yield "tree.optimizer.param_groups", optimizer.get("param_groups"), list
    for number, group in enumerate(optimizer["param_groups"]):
        yield f"tree.optimizer.param_groups[{number}]", group, dict
        yield f"tree.optimizer.param_groups[{number}].params", group.get("params"), list
    for number, own in enumerate(tree["processes"]):
        place = f"tree.processes[{number}]"
        yield place, own, dict
        yield f"{place}.loss", own.get("loss"), float
        yield f"{place}.random", own.get("random"), dict


def _random_problem(state: dict[str, Any]) -> str | None:
    """Return the name of an invalid generator state, or None; with such a state, a generator reads out of bounds."""
    own = state.get("torch")
    if not isinstance(own, Tensor) or own.dtype != torch.uint8 or own.dim() != 1:
        return "torch"
    cuda = state.get("cuda")
    if not isinstance(cuda, list) or any(not isinstance(each, Tensor) for each in cuda):
        return "cuda"
    python = state.get("python")
    if not isinstance(python, tuple) or len(python) != 3 or not isinstance(python[1], tuple):
        return "python"
    numpy = state.get("numpy")
    inner = numpy.get("state") if isinstance(numpy, dict) else None
    key = inner.get("key") if isinstance(inner, dict) else None
    whole = isinstance(key, np.ndarray) and key.dtype == np.uint32 and key.shape == (MERSENNE,)
    if not whole or not isinstance(inner, dict) or type(inner.get("pos")) is not int:
        return "numpy"
    return None if 0 <= inner["pos"] <= MERSENNE else "numpy"


def check_optimizer(found: Checkpoint, optimizer: Optimizer) -> None:
    """Refuse an optimizer whose state, just loaded, does not belong to its parameters.

    Raises:
        CheckpointError: names the path of the entry that does not fit.
    """
    names = {"momentum_buffer"} if isinstance(optimizer, SGD) else ADAM
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(parameters):
        state, place = optimizer.state.get(parameter, {}), f"tree.optimizer.state.{index}"
        if state and state.keys() != names:
            raise _misfit(found, place, f"holds {sorted(map(str, state))}, not {sorted(names)}")
        for name, value in state.items():
            if name == "step":
                if not isinstance(value, Tensor) or value.numel() != 1 or not 0 <= float(value) < math.inf:
                    raise _misfit(found, f"{place}.step", "is not a number of steps")
            elif value is None and names != ADAM:  # no momentum
                continue
            elif not isinstance(value, Tensor) or value.shape != parameter.shape:
                raise _misfit(found, f"{place}.{name}", f"is not of its parameter's shape, {list(parameter.shape)}")


_REMEDY = "remove it, so that the one before is taken, or choose another folder with output=..."


def _misfit(found: Checkpoint, place: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{found.path}: {place} {problem}; {_REMEDY}")

"""A network in training and in evaluation: whether its code does the same in both."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunus.graph.attributes import names_read
from prunus.graph.export import in_mode
from prunus.graph.narrow import shaped

NOISE = ("empty", "rand", "bernoulli")


def on(value: Any, device: str) -> Any:
    """Return arguments with their tensors moved to `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: on(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on(item, device) for item in value)
    return value


def trains_otherwise(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], unused: Sequence[str] = ()
) -> bool:
    """Whether the operators in training are others than in evaluation, random masks aside.

    Both are run on shapes alone; where a network does not run on these, only its modules can tell: those whose code
    asks for the mode, and those `unused` in evaluation.
    """
    try:
        args, kwargs = on(args, "meta"), on(kwargs, "meta")
        calls = [_calls(model, args, kwargs, training=training) for training in (False, True)]
    except Exception:  # whatever the user's own code raises where there are no values
        own = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
        return bool(unused) or any("training" in names_read(kind) for kind in own)
    return calls[0] != calls[1]


def _calls(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, training: bool) -> list[Any]:
    copy = shaped(model, {}, "meta")  # of its own for each mode: code may keep what it has computed
    with in_mode(copy, training=training), torch.no_grad(), _Recorder() as recorder:
        output = copy(*args, **kwargs)
    leaves = torch.utils._pytree.tree_leaves(output)
    return [*recorder.calls, *(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor))]


class _Recorder(TorchFunctionMode):
    """Notes the functions called, with the shapes of what they return.

    A tensor that is multiplied with random numbers counts as the same tensor: that is dropout, of whatever kind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.noise: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if not isinstance(result, Tensor) or name == "__get__":
            return result
        given = [arg for arg in args if isinstance(arg, Tensor)]
        clean = [arg for arg in given if id(arg) not in self.noise]
        if any(word in name for word in NOISE) or (given and not clean):
            self.noise[id(result)] = result
        elif len(given) == len(clean) or "mul" not in name:
            self.calls.append((name, tuple(result.shape)))
        return result

"""A network in training and in evaluation: whether its code does the same in both."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from prunus.graph import recurrent
from prunus.graph.code import mentions
from prunus.graph.export import in_mode
from prunus.graph.place import flat
from prunus.graph.shapes import Shapes
from prunus.modules.cutting import shaped

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


class Modes(NamedTuple):
    """What is known of a network's two modes.

    Attributes:
        differ: whether the operators in training are others than in evaluation, random masks aside.
        on_shapes: whether the network runs on shapes alone; None where it was not tried.
    """

    differ: bool
    on_shapes: bool | None


def modes(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], unused: Sequence[str] = ()) -> Modes:
    """Find out whether a network does in training what it does in evaluation.

    It may do otherwise where code asks for the mode, or leaves modules `unused` in evaluation: then both are run on
    shapes alone, and where it does not run on these, it is taken to do otherwise.
    """
    if not unused and not mentions(model, "training"):
        return Modes(differ=False, on_shapes=None)
    try:
        args, kwargs = on(args, "meta"), on(kwargs, "meta")
        shapes = Shapes()
        calls = [_calls(model, args, kwargs, shapes, training=training) for training in (False, True)]
    except Exception:  # whatever the user's own code raises where there are no values
        return Modes(differ=True, on_shapes=None)
    return Modes(calls[0] != calls[1], on_shapes=True)


def _calls(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], shapes: Shapes, *, training: bool
) -> list[Any]:
    copy = shaped(model, {}, "meta")  # of its own for each mode: code may keep what it has computed
    with in_mode(copy, training=training), torch.no_grad(), _Recorder(shapes) as recorder:
        output = copy(*args, **kwargs)
    leaves = torch.utils._pytree.tree_leaves(output)
    return [*recorder.calls, *(tuple(leaf.shape) for leaf in leaves if isinstance(leaf, Tensor))]


class _Recorder(TorchFunctionMode):
    """Notes the functions called, with the numbers that they take and the shapes of what they return.

    A tensor that is multiplied with random numbers counts as the same tensor: that is dropout, of whatever kind.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        self.shapes = shapes
        self.calls: list[tuple[str, tuple[float, ...], tuple[int, ...]]] = []
        self.noise: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if recurrent.operator(func, args) is not None:
            return recurrent.outputs(args)
        result = self.shapes.of(func, args, kwargs or {})
        name = getattr(func, "__name__", "")
        if not isinstance(result, Tensor) or name == "__get__":
            return result
        given = [arg for arg in args if isinstance(arg, Tensor)]
        clean = [arg for arg in given if id(arg) not in self.noise]
        if any(word in name for word in NOISE) or (given and not clean):
            self.noise[id(result)] = result
        elif len(given) == len(clean) or "mul" not in name:
            numbers = tuple(each for each in flat([*args, kwargs or {}]) if type(each) in (int, float))
            self.calls.append((name, numbers, tuple(result.shape)))
        return result

"""Run a network on shapes alone, and note every operator that its code calls."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.graph import recurrent
from prunus.graph.export import in_mode, plain_attention
from prunus.graph.shapes import Shapes

META = torch.device("meta")
HANDED_ON = frozenset(
    {torch.ops.aten.detach.default, torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operator that was called: what went in, as it was nested, and the tensors that came out."""

    target: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Tensor, ...]

    @functools.cached_property
    def leaves(self) -> list[Any]:
        """Return the arguments, containers opened."""
        return leaves((self.args, self.kwargs))

    @property
    def writes(self) -> bool:
        """Whether the operator changes an argument, or nothing comes out of it."""
        return self.target._schema.is_mutable or not self.outputs


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operator, composite ones taken apart; new tensors are made on the meta device.

    What only hands a tensor on is not noted, and constants keep their values.
    """

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.shapes = shapes
        self.operations: list[Operation] = []
        self.originals: dict[int, tuple[Tensor, Tensor]] = {}  # by id of a tensor: itself, and what it stands for

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        settings = kwargs or {}
        if func is torch.ops.aten.scalar_tensor.default:
            return torch.scalar_tensor(args[0], dtype=settings.get("dtype"))
        if settings.get("device") is not None:
            settings = {**settings, "device": META}
        result = self.shapes.of(func, args, settings)
        if func in HANDED_ON:
            self.originals[id(result)] = result, self.original(args[0])
        else:
            if self.originals:
                args, settings = self._as_given(args), self._as_given(settings)
            self.operations.append(Operation(func, args, settings, tuple(found(leaves(result)))))
        return result

    def noted(self, target: Any, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """Note a recurrent operator as one; return its outputs."""
        before = len(self.operations)
        results = recurrent.outputs(args)
        self.operations[before:] = [Operation(target, self._as_given(args), {}, results)]
        return results

    def _as_given(self, value: Any) -> Any:
        """Return an operator's arguments with the tensors that those in it stand for."""
        if isinstance(value, Tensor):
            return self.original(value)
        if isinstance(value, dict):
            return {key: self._as_given(item) for key, item in value.items()}
        return type(value)(map(self._as_given, value)) if type(value) in (list, tuple) else value

    def original(self, tensor: Tensor) -> Tensor:
        """Return the tensor that one stands for: mostly itself."""
        return self.originals.get(id(tensor), (tensor, tensor))[1]


class _WholeRecurrences(TorchFunctionMode):
    """Lets a recorder note recurrent operators as they are called, before torch takes them apart."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        target = recurrent.operator(func, args)
        return func(*args, **(kwargs or {})) if target is None else self.recorder.noted(target, args)


@dataclasses.dataclass(frozen=True)
class Run:
    """What a network's code did on shapes alone."""

    model: nn.Module
    inputs: tuple[Any, ...]  # the leaves of its arguments
    operations: list[Operation]
    outputs: tuple[Tensor, ...]
    shapes: Shapes


def run(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    training: bool,
    shapes: Shapes | None = None,
) -> Run:
    """Run `model`, which is on the meta device as its arguments are, and note what it does.

    Args:
        model: on the meta device.
        args: its positional arguments.
        kwargs: its keyword arguments.
        training: the mode it is run in.
        shapes: what is known of operators from other runs.

    Raises:
        Exception: whatever the user's own code raises at a width that it does not expect.
    """
    with (
        in_mode(model, training=training),
        torch.no_grad(),
        plain_attention(),
        Recorder(shapes := shapes or Shapes()) as recorder,
        _WholeRecurrences(recorder),
    ):
        outputs = model(*args, **kwargs)
    returned = tuple(map(recorder.original, tensors(outputs)))
    return Run(model, tuple(pytree.tree_leaves((args, kwargs))), recorder.operations, returned, shapes)


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in what a network takes or returns, nested in whatever torch knows."""
    return found(pytree.tree_leaves(value))


def found(values: Iterable[Any]) -> list[Tensor]:
    """Return the tensors among `values`."""
    return [value for value in values if isinstance(value, Tensor)]


def leaves(value: Any) -> list[Any]:
    """Return the items of an operator's nested lists, tuples and dictionaries: much faster than `pytree`."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return [value]
    return [leaf for item in value for leaf in leaves(item)]


def dead(code: Run) -> list[bool]:
    """Return of each operation whether nothing came of it."""
    used, found = {id(output) for output in code.outputs}, list[bool]()
    for operation in reversed(code.operations):
        live = operation.writes or any(id(output) in used for output in operation.outputs)
        if live:
            used.update(id(leaf) for leaf in operation.leaves if isinstance(leaf, Tensor))
        found.append(not live)
    return found[::-1]

"""Branches whose output does not depend on the input: the constant that each adds, zero or one number per channel."""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from prunus.modules.copying import copied
from prunus.program import Operation, Program, Value, read

ROUNDING = 1e-9  # relative, in float64: two positions that differ by less are equal


@dataclasses.dataclass(frozen=True)
class Constant:
    """The constant of a branch: `numbers` along dimension `dim`, negative if counted from the end; empty for zero."""

    numbers: tuple[float, ...] = ()
    dim: int = 1


def ancestors(
    branch: Value, constant: set[Value], counts: Callable[[Operation], bool] = lambda operation: True
) -> set[Value]:
    """Return the values of `constant` from which `branch` is computed, itself included, through the operations for
    which `counts` is true."""
    waiting, seen = [branch], set[Value]()
    while waiting:
        value = waiting.pop()
        if value in constant and value not in seen:
            seen.add(value)
            waiting += value.maker.operands if value.maker is not None and counts(value.maker) else []
    return seen


class Branches:
    """The constant branches of a network, for one example."""

    def __init__(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        self._model, self._args = model, args
        self.program = read(model, args, with_values=True)

    def shift(self, branch: Value, constant: set[Value]) -> Constant | None:
        """Return the constant that `branch` adds to any input; None if it varies with the position, or if the example
        does not determine which dimension holds the channels."""
        if _reaches_border(ancestors(branch, constant, _reads_input), constant):
            return None
        value = numbers(branch)
        if not bool(value.any()):
            return Constant()
        dims = _varying(numbers(self._others[branch]))
        if len(dims) != 1:
            return None
        channels = value.movedim(dims[0], 0).flatten(1)
        if not bool((channels == channels[:, :1]).all()):
            return None
        return Constant(tuple(channels[:, 0].tolist()), dims[0] - value.dim())

    @cached_property
    def _others(self) -> dict[Value, Value]:
        """Each value's counterpart under random parameters with the same signs.

        Equal numbers do not show which dimension they belong to; random numbers do. Zeros, and values that a ReLU sets
        to zero, stay zero: otherwise a padding would border on non-zero values only here.
        """
        generator, other = torch.Generator().manual_seed(0), copied(self._model, isolated=True)
        for tensor in other.parameters():
            if tensor.is_floating_point() and tensor.dim():
                drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype, device="cpu") + 0.5
                # Scaled so that layers average rather than sum, and no sigmoid saturates.
                scale = len(tensor) / max(1, tensor.numel())
                tensor.data = drawn.to(tensor.device) * tensor.detach().sign() * scale
        again = read(other, self._args, with_values=True)
        return dict(zip(_values(self.program), _values(again), strict=True))


def numbers(value: Value) -> Tensor:
    """Return a value's tensor."""
    assert value.tensor is not None  # the network was read with values
    return value.tensor


def _values(program: Program) -> list[Value]:
    return [value for operation in program.operations for value in operation.results] + program.given


def _varying(value: Tensor) -> list[int]:
    """Return the dimensions along which a tensor varies."""
    least = ROUNDING * float(value.abs().max())
    return [dim for dim in range(value.dim()) if bool(((value.amax(dim) - value.amin(dim)) > least).any())]


def _reaches_border(branch: set[Value], constant: set[Value]) -> bool:
    """Return whether a branch pads a tensor that is not zero: its value then differs at the border, even if the example
    is too small to show it."""
    makers = [value.maker for value in branch if value.maker is not None and value.maker.operands]
    padded = [maker.operands[0] for maker in makers if _pads(maker) and _reads_input(maker)]
    return any(value in constant and bool(numbers(value).any()) for value in padded)


def _reads_input(operation: Operation) -> bool:
    """Return whether an operation's output depends on its first operand: it does not if the weight is zero."""
    weight = operation.arguments.get("weight")
    linear = operation.name == "aten::linear" or operation.name.startswith("aten::conv")
    return not (linear and isinstance(weight, Value) and not bool(numbers(weight).any()))


def _pads(operation: Operation) -> bool:
    """Return whether an operator pads its first argument, or inserts zeros between its values."""
    name, arguments = operation.name, operation.arguments
    if name == "aten::pad":
        return bool(arguments["mode"] == "constant")
    if name.startswith(("aten::conv_transpose", "aten::constant_pad")):
        return True
    padding = arguments.get("padding", 0) if name.startswith(("aten::conv", "aten::avg_pool")) else 0
    return padding != "valid" and any(padding if isinstance(padding, list | tuple) else [padding])

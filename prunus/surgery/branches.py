"""The constant that a branch adds which does not depend on the input: zero, or one number per channel."""

import dataclasses
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec

from prunus.graph.place import operator_name
from prunus.modules.tree import leaves

ROUNDING = 1e-9  # relative, in float64: below it two positions are equal


@dataclasses.dataclass(frozen=True)
class Constant:
    """The constant of a branch: `numbers` along the dimension `dim`, counted from the last one (-1); none for zero."""

    numbers: tuple[float, ...] = ()
    dim: int = 1


def ancestors(branch: fx.Node, constant: set[fx.Node]) -> set[fx.Node]:
    """Return the nodes of `constant` from which `branch` is computed, itself included."""
    waiting, seen = [branch], set[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node in constant and node not in seen:
            seen.add(node)
            waiting += node.all_input_nodes
    return seen


class Branches:
    """The constant branches of a network, for one example."""

    def __init__(self, program: ExportedProgram, args: tuple[Any, ...]) -> None:
        self._program, self._args = program, args

    def shift(self, branch: fx.Node, constant: set[fx.Node]) -> Constant | None:
        """Return the constant that `branch` adds to any input; None where it varies with the position, or where the
        example does not determine which dimension holds the channels."""
        if _reaches_border(ancestors(branch, constant), constant, self._values):
            return None
        value = self._values[branch].detach()
        if not bool(value.any()):
            return Constant()
        dims = _varying(self._others[branch].detach())
        if len(dims) != 1:
            return None
        channels = value.movedim(dims[0], 0).flatten(1)
        if not bool((channels == channels[:, :1]).all()):
            return None
        return Constant(tuple(channels[:, 0].tolist()), dims[0] - value.dim())

    @cached_property
    def _values(self) -> dict[fx.Node, Any]:
        """The value of each node."""
        return self._run(self._tensor)

    @cached_property
    def _others(self) -> dict[fx.Node, Any]:
        """The value of each node for other parameters of the same signs.

        Numbers that happen to be equal do not tell which dimension they belong to; numbers drawn at random do. What is
        zero stays so, as what a ReLU cuts off: else a padding would meet what it does not meet.
        """
        generator = torch.Generator().manual_seed(0)

        def drawn(spec: InputSpec) -> Tensor:
            tensor = self._tensor(spec)
            if spec.kind is not InputKind.PARAMETER or not tensor.is_floating_point() or not tensor.dim():
                return tensor
            numbers = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype, device="cpu") + 0.5
            # Scaled so that layers average rather than sum: no sigmoid saturates.
            return numbers.to(tensor.device) * tensor.sign() * (len(tensor) / max(1, tensor.numel()))

        return self._run(drawn)

    def _tensor(self, spec: InputSpec) -> Tensor:
        name = str(spec.target)
        tensors = self._program.state_dict if name in self._program.state_dict else self._program.constants
        found: Tensor = tensors[name]
        return found

    def _run(self, tensor: Any) -> dict[fx.Node, Any]:
        fed = iter(leaves(self._args))
        specs = self._program.graph_signature.input_specs
        given = [next(fed) if spec.kind is InputKind.USER_INPUT else tensor(spec) for spec in specs]
        values = dict[fx.Node, Any]()

        class Keeping(fx.Interpreter):
            def run_node(self, node: fx.Node) -> Any:
                values[node] = super().run_node(node)
                return values[node]

        with torch.no_grad():
            Keeping(self._program.graph_module).run(*given)
        return values


def _varying(value: Tensor) -> list[int]:
    """Return the dimensions along which a tensor varies."""
    least = ROUNDING * float(value.abs().max())
    return [dim for dim in range(value.dim()) if bool(((value.amax(dim) - value.amin(dim)) > least).any())]


def _reaches_border(branch: set[fx.Node], constant: set[fx.Node], values: dict[fx.Node, Any]) -> bool:
    """Whether a branch pads a tensor that is not zero: its value then differs at the border, even where the example is
    too small to show it."""
    return any(
        _pads(node) and node.args[0] in constant and bool(values[node.all_input_nodes[0]].any()) for node in branch
    )


def _pads(node: fx.Node) -> bool:
    """Whether an operator pads its first argument, or inserts zeros between its values."""
    name = operator_name(node.target) if node.op == "call_function" else ""
    if name == "aten::pad":
        return node.args[2:3] in ((), ("constant",))
    if name.startswith(("aten::conv_transpose", "aten::constant_pad")):
        return True
    position = 4 if name.startswith("aten::conv") else 3 if name.startswith("aten::avg_pool") else None
    padding: Any = node.args[position] if position is not None and len(node.args) > position else 0
    return padding != "valid" and any(padding if isinstance(padding, list | tuple) else [padding])

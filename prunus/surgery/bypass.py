"""BypassBlock: a residual block whose branch has become constant is replaced; training has chosen the depth.

Where a convolution or linear layer has nothing but zeros, what it leads to does not depend on the input. If that is
the branch of a block y = x + f(x), or y = relu(x + f(x)), f is a constant c for each channel and the block is x + c
(Alvarez & Salzmann, NIPS 2016; GTC 2019, slides 70 to 72).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from prunus.errors import EditError
from prunus.graph.export import export
from prunus.graph.place import operator_name
from prunus.graph.trace import Inputs, arguments
from prunus.modules.copying import copied
from prunus.modules.paths import module_at
from prunus.modules.tensors import in_float64
from prunus.surgery.argument_types import checked
from prunus.surgery.branches import Branches, ancestors
from prunus.surgery.edit import ReplaceModules
from prunus.surgery.plan import Plan


class Shift(nn.Module):
    """y = x + shift, one number per channel; the channels are the dimension `dim` of x."""

    def __init__(self, shift: Tensor, dim: int = 1) -> None:
        super().__init__()
        self.shift, self.dim = nn.Parameter(shift), dim

    def reset_parameters(self) -> None:
        """Set the shift to zero."""
        nn.init.zeros_(self.shift)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return the input, shifted."""
        behind = -1 - self.dim if self.dim < 0 else input.dim() - 1 - self.dim
        return input + self.shift.view(-1, *[1] * behind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BypassBlock(ReplaceModules):
    """Replace the residual block at `path`, whose branch is constant, by that constant.

    Attributes:
        kind: the block's class: a plan for another network is noticed.
        shift: the branch's constant for each channel; empty where it is zero.
        rectified: whether a ReLU stands behind the sum.
        dim: which dimension the channels are, counted from the last one (-1) where it is below zero.
    """

    edit_name: ClassVar[str] = "Bypass"
    exact: ClassVar[bool] = True
    path: str
    kind: str
    shift: tuple[float, ...] = ()
    rectified: bool = False
    dim: int = 1

    @property
    def made_anew(self) -> tuple[str, ...]:
        """The block's path."""
        return (self.path,)

    def successors(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return what takes the block's place."""
        block = module_at(model, self.path)
        if type(block).__name__ != self.kind:
            raise EditError(
                f"{self.path} is a {type(block).__name__}, the plan is for a {self.kind}: it was made for another "
                "network, or was applied already"
            )
        like = next(block.parameters())
        left = list[nn.Module]()
        if self.shift:
            left.append(Shift(torch.tensor(self.shift, dtype=like.dtype, device=like.device), self.dim))
        if self.rectified:
            left.append(nn.ReLU())
        new = left[0] if len(left) == 1 else nn.Sequential(*left) if left else nn.Identity()
        return {self.path: new.train(block.training)}

    def summary(self) -> str:
        """Describe the edit in one line."""
        constant = "constant" if self.shift else "zero"
        return f"bypass {self.path} ({self.kind}): its branch is {constant}, whatever comes in"


@checked
def bypass(model: nn.Module, inputs: Inputs) -> Plan:
    """Return the plan that takes out every residual block of `model` whose branch is constant; often an empty one.

    Args:
        model: any network; it is not changed.
        inputs: the positional arguments of an example; a tensor stands for a tuple of one.

    Raises:
        TraceError: the model cannot be read.
    """
    zero = {path for path, parameter in model.named_parameters() if parameter.dim() > 1 and not bool(parameter.any())}
    if not zero:
        return Plan()
    precise = copied(model, isolated=True).double()  # in float64: the constant is rounded when it is applied
    args = in_float64(arguments(inputs))
    program = export(precise, args, None, training=False)
    constant, branches = _constant(program, zero), Branches(program, args)
    edits = dict[str, BypassBlock]()
    for node in program.graph.nodes:
        for path, branch, rectified in _blocks(program, node, constant):
            found = branches.shift(branch, constant)
            if found is not None and not any(path.startswith(f"{outer}.") for outer in edits):
                kind = type(model.get_submodule(path)).__name__
                edits[path] = BypassBlock(path=path, kind=kind, shift=found.numbers, rectified=rectified, dim=found.dim)
    return Plan(tuple(edits.values()))


@checked
def skippable(model: nn.Module, inputs: Inputs) -> frozenset[str]:
    """Return the layers of `model` that may vanish: once all units of one are zero, `bypass` takes out its block.

    Args:
        model: any network; it is not changed.
        inputs: the positional arguments of an example; a tensor stands for a tuple of one.

    Raises:
        TraceError: the model cannot be read.
    """
    program = export(model, arguments(inputs), None, training=False)
    named = program.graph_signature.inputs_to_parameters
    weights = {named.get(str(node.args[1])) for node in program.graph.nodes if _is_layer(node)} - {None}
    found = set[str]()
    for weight in map(str, weights):
        constant = _constant(program, {weight})
        if any(block for node in program.graph.nodes for block in _blocks(program, node, constant)):
            found.add(weight.rpartition(".")[0])
    return frozenset(found)


def _is_layer(node: fx.Node) -> bool:
    name = operator_name(node.target) if node.op == "call_function" else ""
    return name == "aten::linear" or name.startswith("aten::conv")


def _constant(program: ExportedProgram, zero: set[str]) -> set[fx.Node]:
    """Return the nodes that do not depend on the input: outputs of a layer of zeros, or computed from such alone."""
    named = program.graph_signature.inputs_to_parameters
    given = set(program.graph_signature.user_inputs)
    found = set[fx.Node]()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            constant = node.name not in given
        else:
            dead = _is_layer(node) and named.get(str(node.args[1])) in zero
            constant = dead or all(source in found for source in node.all_input_nodes)
        if constant:
            found.add(node)
    return found


def _fits(node: fx.Node, branch: fx.Node, skipping: fx.Node, constant: set[fx.Node]) -> bool:
    """Whether a sum adds two tensors of its own shape, and its constant branch starts at the input: a learned constant,
    such as an embedding of positions, is no branch."""
    shapes = {tuple(each.meta["val"].shape) for each in (node, branch, skipping)}
    entered = (source for each in ancestors(branch, constant) for source in each.all_input_nodes)
    return len(shapes) == 1 and any(source not in constant for source in entered)


def _blocks(program: ExportedProgram, node: fx.Node, constant: set[fx.Node]) -> Iterator[tuple[str, fx.Node, bool]]:
    """Yield (path, branch, rectified) of the outermost module that computes `node` = x + constant, or its ReLU."""
    if node.op != "call_function" or operator_name(node.target) != "aten::add" or node in constant:
        return
    branches = [source for source in node.all_input_nodes if source in constant]
    others = [source for source in node.all_input_nodes if source not in constant]
    if len(branches) != 1 or len(others) != 1 or len(node.args) != 2 or node.kwargs:
        return
    if not _fits(node, branches[0], others[0], constant):
        return
    after = [user for user in node.users if user.op == "call_function" and operator_name(user.target) == "aten::relu"]
    for path in _modules(node):
        inside = [other for other in program.graph.nodes if path in _modules(other)]
        entering = {source for each in inside for source in each.all_input_nodes} - set(inside) - constant
        leaving = [each for each in inside if any(user not in inside for user in each.users)]
        if entering == set(others) and (leaving == [node] or (len(node.users) == 1 and leaving == after)):
            yield path, branches[0], leaving == after
            return


def _modules(node: fx.Node) -> list[str]:
    """Return the paths of the modules in whose calls a node lies, outermost first, without the network itself."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    return [path for path, _ in stack.values() if path]

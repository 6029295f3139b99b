"""BypassBlock: replace a residual block whose branch has become constant, so that training determines the depth.

Where the weight of a convolution or linear layer is zero, its output does not depend on the input. If this makes the
branch of a block y = x + f(x), or y = relu(x + f(x)), constant, f is one number c per channel and the block is x + c
(Alvarez & Salzmann, NIPS 2016; GTC 2019, slides 70 to 72).
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunus.errors import EditError
from prunus.modules.copying import copied
from prunus.modules.given import Inputs, arguments, check_readable
from prunus.modules.paths import module_at
from prunus.modules.tensors import in_float64
from prunus.program import Operation, Origin, Program, Value, read
from prunus.surgery.argument_types import checked
from prunus.surgery.branches import Branches, ancestors
from prunus.surgery.layers import ReplaceModules
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
        """Return the shifted input."""
        behind = -1 - self.dim if self.dim < 0 else input.dim() - 1 - self.dim
        return input + self.shift.view(-1, *[1] * behind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BypassBlock(ReplaceModules):
    """Replace the residual block at `path`, whose branch is constant, by that constant.

    Attributes:
        kind: name of the block's class, checked so that a plan for another network is refused.
        shift: the branch's constant, one number per channel; empty where it is zero.
        rectified: whether a ReLU follows the sum.
        dim: the dimension of the channels, counted from the end if negative.
    """

    edit_name: ClassVar[str] = "Bypass"
    exact: ClassVar[bool] = True
    path: str
    kind: str
    shift: tuple[float, ...] = ()
    rectified: bool = False
    dim: int = 1

    def successors(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the module that replaces the block."""
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
        return f"bypass {self.path} ({self.kind}): its branch is {constant} for every input"


@checked
def bypass(model: nn.Module, inputs: Inputs) -> Plan:
    """Return the plan that bypasses every residual block of `model` whose branch is constant; it is often empty.

    Args:
        model: any network; it is not changed.
        inputs: the positional arguments of an example; a tensor stands for a tuple of one.

    Raises:
        TraceError: the model cannot be read.
    """
    check_readable(model)
    zero = {path for path, parameter in model.named_parameters() if parameter.dim() > 1 and not bool(parameter.any())}
    if not zero:
        return Plan()
    precise = copied(model).double()  # the constant is computed in float64, and rounded when it is applied
    args = in_float64(arguments(inputs))
    branches = Branches(precise, args)
    program, edits = branches.program, dict[str, BypassBlock]()
    constant = _constant(program, zero)
    for operation in program.operations:
        for path, branch, rectified in _blocks(program, operation, constant):
            found = branches.shift(branch, constant)
            if found is not None and not any(path.startswith(f"{outer}.") for outer in edits):
                kind = type(model.get_submodule(path)).__name__
                edits[path] = BypassBlock(path=path, kind=kind, shift=found.numbers, rectified=rectified, dim=found.dim)
    return Plan(tuple(edits.values()))


@checked
def skippable(model: nn.Module, inputs: Inputs) -> frozenset[str]:
    """Return the layers of `model` that may vanish: once all units of one are zero, `bypass` replaces its block.

    Args:
        model: any network; it is not changed.
        inputs: the positional arguments of an example; a tensor stands for a tuple of one.

    Raises:
        TraceError: the model cannot be read.
    """
    return frozenset().union(*skippable_blocks(model, inputs).values())


@checked
def skippable_blocks(model: nn.Module, inputs: Inputs) -> dict[str, frozenset[str]]:
    """Return, for each residual block, the layers any of which lets `bypass` replace it once all its units are zero.

    Args:
        model: any network; it is not changed.
        inputs: the positional arguments of an example; a tensor stands for a tuple of one.

    Raises:
        TraceError: the model cannot be read.
    """
    program = read(model, arguments(inputs))
    found: dict[str, set[str]] = {}
    for weight in {weight: None for operation in program.operations if (weight := _weight(operation))}:
        constant = _constant(program, {weight})
        for operation in program.operations:
            for path, _, _ in _blocks(program, operation, constant):
                found.setdefault(path, set()).add(weight.rpartition(".")[0])
    return {path: frozenset(layers) for path, layers in found.items()}


def _weight(operation: Operation) -> str:
    """Return the path of the weight of a linear layer or convolution, "" for any other operation."""
    layer = operation.name == "aten::linear" or operation.name.startswith("aten::conv")
    weight = operation.arguments["weight"] if layer else None
    return weight.path if isinstance(weight, Value) else ""


def _constant(program: Program, zero: set[str]) -> set[Value]:
    """Return the values that do not depend on the input: outputs of weights in `zero`, or computed from such alone."""
    found = {value for value in program.given if value.origin is not Origin.INPUT}
    for operation in program.operations:
        if _weight(operation) in zero or all(operand in found for operand in operation.operands):
            found.update(operation.results)
    return found


def _fits(total: Value, branch: Value, skipping: Value, constant: set[Value]) -> bool:
    """Return whether a sum adds two tensors of its own shape, and its constant branch starts at the input: a learned
    constant, such as an embedding of positions, is not a branch."""
    makers = [value.maker for value in ancestors(branch, constant) if value.maker is not None]
    entered = (operand for maker in makers for operand in maker.operands)
    alike = total.shape == branch.shape == skipping.shape
    return alike and any(operand not in constant for operand in entered)


def _blocks(program: Program, operation: Operation, constant: set[Value]) -> Iterator[tuple[str, Value, bool]]:
    """Yield (path, branch, rectified) of the outermost module that computes x + constant, or its ReLU."""
    if operation.name != "aten::add" or operation.results[0] in constant or operation.arguments["alpha"] != 1:
        return
    total, operands = operation.results[0], operation.operands
    branches = [operand for operand in operands if operand in constant]
    others = [operand for operand in operands if operand not in constant]
    if len(branches) != 1 or len(others) != 1 or not _fits(total, branches[0], others[0], constant):
        return
    after = [reader for reader in total.readers if reader.name == "aten::relu"]
    for path in operation.scopes:
        inside = [other for other in program.operations if path in other.scopes]
        made = {value for other in inside for value in other.results}
        entering = {operand for other in inside for operand in other.operands} - made - constant
        returned = made.intersection(program.outputs)
        leaving = [
            other
            for other in inside
            if any(v in returned or any(path not in r.scopes for r in v.readers) for v in other.results)
        ]
        rectified = leaving == after and len(total.readers) == 1
        if entering == set(others) and (leaving == [operation] or rectified):
            yield path, branches[0], rectified
            return

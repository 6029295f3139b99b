"""`Program`: a network as the sequence of operators that its code calls."""

import dataclasses
import enum
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prunus.program.operators import Operator


class Origin(enum.Enum):
    """The origin of a tensor."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    INPUT = "input"
    CONSTANT = "constant"  # made by the code from numbers alone, or kept as a plain attribute
    COMPUTED = "computed"


@dataclasses.dataclass(eq=False, slots=True, repr=False)
class Value:
    """A tensor of the network.

    Attributes:
        shape: its shape.
        dtype: its type.
        origin: its origin.
        path: dotted path of a parameter or buffer.
        constant: its values, where they do not depend on inputs, parameters or floating-point buffers.
        tensor: its values for the example, where the network was read with values.
        maker: the operation that returned it.
        readers: the operations that take it, in order.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    origin: Origin = Origin.COMPUTED
    path: str = ""
    constant: Tensor | None = None
    tensor: Tensor | None = None
    maker: "Operation | None" = None
    readers: list["Operation"] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False, slots=True, repr=False)
class Operation:
    """One call of an operator.

    Attributes:
        number: its place in the order of calls.
        operator: the operator.
        arguments: by their names in the schema; tensors, also in lists, are replaced by values.
        operands: the values among the arguments.
        results: the values returned.
        scopes: dotted paths of the modules whose calls enclose it, outermost first, without the network itself.
        line: "file:line" of the innermost code that is not torch's, "" where there is none.
    """

    number: int
    operator: Operator
    arguments: dict[str, object]
    operands: list[Value]
    results: list[Value]
    scopes: tuple[str, ...]
    line: str

    @property
    def name(self) -> str:
        """Return "namespace::operator"."""
        return self.operator.name

    @property
    def module(self) -> str:
        """Return the dotted path of the module whose code called the operator."""
        return self.scopes[-1] if self.scopes else ""

    @property
    def where(self) -> str:
        """Return "operator in module, file:line" for messages."""
        place = self.line.rpartition("/")[2]
        return f"{self.name}{f' in {self.module}' if self.module else ''}{f', {place}' if place else ''}"


@dataclasses.dataclass(eq=False, slots=True)
class Passed:
    """The tensors that a module takes and returns."""

    taken: list[Value]
    returned: list[Value] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a network is read.

    Attributes:
        training: whether it runs in training mode.
        with_values: whether it runs on real tensors, since it does not run on the meta device.
        with_masks: whether boolean buffers have values; otherwise they are data, with channels as any other.
        large: which tensors made from sizes alone are too large to compute, in order; after the last, sizes decide.
    """

    training: bool
    with_values: bool
    with_masks: bool = True
    large: Sequence[bool] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """The operators that a network's code calls on an example.

    Attributes:
        given: parameters, buffers and inputs, then constants in the order of use.
        operations: the operators called, in order.
        outputs: the tensors that the network returned.
        passed: the tensors that each module took and returned in its last call, by path.
        mode: how it was read.
    """

    given: list[Value]
    operations: list[Operation]
    outputs: list[Value]
    passed: dict[str, Passed]
    mode: Mode

    def forget(self) -> None:
        """Drop the values of the example."""
        for value in (*self.given, *(result for operation in self.operations for result in operation.results)):
            value.tensor = None

    def unread(self) -> Iterator[str]:
        """Yield the paths of the parameters that no operator takes."""
        returned = set(map(id, self.outputs))
        for value in self.given:
            if value.origin is Origin.PARAMETER and not value.readers and id(value) not in returned:
                yield value.path

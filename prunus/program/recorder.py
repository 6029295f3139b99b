"""Record every operator that a network's code calls.

Tensors that depend on inputs, parameters, floating-point buffers or masks are *data*: on the meta device they have
shapes but no values. Tensors that the code makes from numbers alone (index tables, positions) are *constants*: they are
computed as in any run, so that code may ask for their values; so are masks where the code asks for theirs. Under
`torch.inference_mode` composite operators (reshape, matmul, ...) reach a dispatch mode whole, as `torch.export` would
show them.
"""

import math
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.modules.strides import compact
from prunus.modules.tree import flat, leaves, replaced
from prunus.program.constant_memory import ConstantMemory, View
from prunus.program.meta import Args, OnMeta, Settings, ValueDependenceError, on, run_with_values
from prunus.program.operations import Operation, Origin, Passed, Value
from prunus.program.operators import Operator, operator

LARGE = 1 << 22  # elements above which a constant is not computed
EMPTY = frozenset({"aten::empty", "aten::new_empty", "aten::empty_strided", "aten::new_empty_strided"})
READ = str(Path(__file__).with_name("read.py"))
FOREIGN = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, __file__))


class OperationRecorder(TorchDispatchMode):
    """Records the operators that are called while it is active.

    Args:
        device: the network's device, on which constants are made.
        with_values: whether data have values: the network runs on a real device.
        large: which tensors made from sizes alone are too large to compute, in order; by default, decided by size.
    """

    supports_higher_order_operators = True

    def __init__(self, device: torch.device, *, with_values: bool, large: Iterable[bool] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.with_values = device, with_values
        self.given: list[Value] = []
        self.large, self._large = list[bool](), iter(large)
        self.operations: list[Operation] = []
        self.scopes: list[str] = []  # paths of the modules that are running
        self.passed: dict[str, Passed] = {}  # the tensors that each module took and returned last
        self.memory = ConstantMemory()
        self._values: dict[int, Value] = {}  # by id of a tensor
        self._held, self._compact = (
            list[Tensor](),
            list[Tensor](),
        )  # tensors whose ids must stay in use; large constants
        self._data: set[int] = set()  # ids of the storages of real tensors that are data
        self._run = run_with_values if with_values else OnMeta().run

    def add(self, tensor: Tensor, origin: Origin, path: str = "") -> None:
        """Register a parameter, buffer or input of the network."""
        numeric = tensor.is_floating_point() or tensor.is_complex()
        constant = None if origin is Origin.INPUT or numeric or tensor.is_meta else tensor
        value = Value(tuple(tensor.shape), tensor.dtype, origin, path, constant)
        self.given.append(value)
        self._know(tensor, value)
        if constant is not None:
            self.memory.read(tensor, value)
        elif not tensor.is_meta:
            self._data.add(id(tensor.untyped_storage()))

    def enter(self, path: str, arguments: object) -> None:
        """Record a call of the module at `path`."""
        self.scopes.append(path)
        self.passed[path] = Passed(self._known(arguments))

    def leave(self, output: object) -> None:
        """Record the output of the innermost running module."""
        self.passed[self.scopes.pop()].returned = self._known(output)

    def _known(self, tree: object) -> list[Value]:
        return [self._values[id(leaf)] for leaf in leaves(tree) if id(leaf) in self._values]

    def value_of(self, tensor: Tensor) -> Value:
        """Return the value of a tensor; a constant met for the first time is added to `given`."""
        found = self._values.get(id(tensor))
        if found is None and self.is_data(tensor):
            return self._alias(tensor)
        if found is None:
            found = Value(tuple(tensor.shape), tensor.dtype, Origin.CONSTANT, constant=self._snapshot(tensor))
            self.given.append(found)
            self._know(tensor, found)
            self.memory.read(tensor, found)
        return found

    def is_data(self, tensor: Tensor) -> bool:
        """Return whether a tensor's values depend on the network's inputs, parameters or floating-point buffers."""
        return tensor.is_meta or id(tensor.untyped_storage()) in self._data

    def __torch_dispatch__(
        self, func: object, types: object, args: Args = (), kwargs: Settings | None = None
    ) -> object:
        settings, called = kwargs or {}, operator(func)
        tensors = [each for each in flat([args, list(settings.values())]) if isinstance(each, Tensor)]
        if called.takes_functions:
            return self._on_graphs(called, args, tensors)
        if called.name.startswith("aten::new_") and called.name not in EMPTY:
            args = (torch.empty(0, dtype=tensors[0].dtype, device=self.device), *args[1:])
            tensors = []
        unknown = called.random or called.name in EMPTY or self._is_large(called, args)
        if unknown or any(map(self.is_data, tensors)):
            return self._on_data(called, args, settings, tensors)
        return self._on_constants(called, args, settings)

    def _is_large(self, called: Operator, args: Args) -> bool:
        """Return whether an operator creates a tensor from sizes alone that is too large to compute."""
        if "device" not in called.keywords:
            return False
        sizes = next((each for each in args if isinstance(each, list | tuple)), ())
        self.large.append(next(self._large, math.prod(each for each in sizes if isinstance(each, int)) > LARGE))
        return self.large[-1]

    def _on_constants(self, called: Operator, args: Args, kwargs: Settings) -> object:
        """Run an operator on constants, outside inference mode: user code may cache the result for training."""
        for tensor in called.written(args, kwargs):
            for identity in self.memory.about_to_write(tensor):
                self._values.pop(identity, None)
        with torch.inference_mode(False), torch.no_grad():
            result = called.call(on(self.device, args), on(self.device, kwargs))
        made = [each for each in flat(result) if isinstance(each, Tensor)]
        if called.is_view:
            self.memory.viewed(View(called, args, kwargs, made))
        elif not called.writes:
            self.memory.own(made)
        return result

    def _on_data(self, called: Operator, args: Args, kwargs: Settings, tensors: list[Tensor]) -> object:
        """Record an operator on data; return its outputs: shapes, or values if the network is read with values."""
        if not called.returns_tensors:
            raise ValueDependenceError(f"{called.name} asks for values that depend on the network's input")
        if called.name.startswith("aten::index"):
            args = self._without_masks(args)
        elif called.sized_by_values:
            raise ValueDependenceError(f"the output size of {called.name} depends on values")
        written = called.written(args, kwargs)
        for tensor in written:
            if not self.is_data(tensor):
                self._views_noted(tensor)
                self.memory.remember(tensor)
        operands = list[Value]()
        arguments = self._bound(called, args, kwargs, operands)
        result = self._run(called, args, kwargs, tensors)
        made = [each for each in flat(result) if isinstance(each, Tensor)]
        self._data.update(id(each.untyped_storage()) for each in (*written, *made) if not each.is_meta)
        self._note(called, arguments, operands, made)
        return result

    def _on_graphs(self, called: Operator, args: Args, tensors: list[Tensor]) -> object:
        """Record an operator that takes functions, without the operators inside. Of a `cond`, one branch is run."""
        result = called.branch(args)
        operands = [self.value_of(tensor) for tensor in tensors]
        made = [each for each in flat(result) if isinstance(each, Tensor)]
        self._note(called, {"operands": operands}, operands, made)
        return result

    def _without_masks(self, args: Args) -> Args:
        """Return the arguments of an index operator with each constant mask replaced by the positions it selects."""
        indices = list[object]()
        for each in args[1] if isinstance(args[1], list | tuple) else ():
            if not isinstance(each, Tensor) or each.dtype not in (torch.bool, torch.uint8):
                indices.append(each)
            elif self.is_data(each):
                raise ValueDependenceError("an index is a mask of values that depend on the network's input")
            else:
                indices.extend(each.nonzero(as_tuple=True))
        return (args[0], indices, *args[2:]) if indices else args

    def _views_noted(self, tensor: Tensor) -> None:
        """Record the views of a constant so far, since data are about to be written into its memory."""
        for view in self.memory.views_of(tensor):
            operands = list[Value]()
            self._note(
                view.operator, self._bound(view.operator, view.args, view.kwargs, operands), operands, view.results
            )

    def _bound(self, called: Operator, args: Args, kwargs: Settings, operands: list[Value]) -> dict[str, object]:
        """Return the arguments by name with tensors replaced by values; add these values to `operands`."""

        def known(tensor: Tensor) -> Value:
            operands.append(found := self.value_of(tensor))
            return found

        return {k: replaced(on(self.device, v), Tensor, known) for k, v in called.bound(args, kwargs).items()}

    def _note(
        self, called: Operator, arguments: dict[str, object], operands: list[Value], made: Iterable[Tensor]
    ) -> None:
        scopes = tuple(filter(None, self.scopes))
        operation = Operation(len(self.operations) + 1, called, arguments, operands, [], scopes, _line())
        for operand in dict.fromkeys(operands):
            operand.readers.append(operation)
        for tensor in made:
            constant = None if self.is_data(tensor) else self._snapshot(tensor)
            value = Value(tuple(tensor.shape), tensor.dtype, constant=constant, maker=operation)
            operation.results.append(value)
            self._know(tensor, value)
        self.operations.append(operation)

    def _snapshot(self, tensor: Tensor) -> Tensor:
        """Return the values of a constant, copied where data may later be written into its memory."""
        return compact(tensor.clone() if self.with_values else tensor, self._compact)

    def _know(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value
        self._held.append(tensor)
        value.tensor = tensor if self.with_values else None

    def _alias(self, tensor: Tensor) -> Value:
        """Return the value of another tensor object with the same memory and layout."""
        key = _layout(tensor)
        for other in reversed(self._held):
            if id(other) in self._values and _layout(other) == key:
                return self._values[id(other)]
        raise ValueDependenceError("a tensor was created without torch seeing it (from numpy, or by an extension)")


def _layout(tensor: Tensor) -> tuple[object, ...]:
    return id(tensor.untyped_storage()), tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _line() -> str:
    """Return "file:line" of the innermost code outside torch and `prunus.program`; "" where there is none."""
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and frame.f_code.co_filename.startswith(FOREIGN):
        frame = frame.f_back if frame.f_code.co_filename != READ else None  # read.py called the network
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""

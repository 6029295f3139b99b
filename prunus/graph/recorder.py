"""Records every operator that a network's code calls.

What depends on inputs, parameters or floating-point buffers is *data*: on the meta device it has a shape, no numbers.
What the code makes of numbers alone (index tables, masks, positions) is *constant*: it is computed as in any run, so
that code may ask for its values. Under `torch.inference_mode` composite operators (reshape, matmul, ...) reach a
dispatch mode whole, as `torch.export` would show them.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from prunus.graph import recurrent
from prunus.graph.labels import compact
from prunus.graph.operators import Operator, operator
from prunus.graph.program import Operation, Origin, Value, flat, replaced

META = torch.device("meta")
LARGE = 1 << 22  # elements of a constant that are not worth being computed
FOREIGN = tuple(f"{Path(file).parent}{os.sep}" for file in (torch.__file__, __file__))
MAKERS = frozenset({"tensor", "as_tensor", "asarray"})  # of tensors, of Python's numbers
ESCAPES = frozenset({"tolist", "numpy", "__array__", "__dlpack__", "data_ptr"})  # leave torch with the values


class ValueDependenceError(RuntimeError):
    """The code asks for the values of data."""


class Recorder(TorchDispatchMode):
    """Notes the operators that are called while it is active.

    Args:
        device: where the network lies: constants are made there.
        with_values: data have numbers: the network runs on a real device.
    """

    def __init__(self, device: torch.device, *, with_values: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device, self.with_values = device, with_values
        self.given: list[Value] = []
        self.operations: list[Operation] = []
        self.scopes: list[str] = []  # of the modules that are running
        self._values: dict[int, Value] = {}  # by id of a tensor
        self._held: list[Any] = []  # whose ids must not be given away
        self._data: set[int] = set()  # ids of the storages of real tensors that are data
        self._memory = _Constants()
        self._stand_ins: dict[int, Tensor] = {}  # meta tensors for real ones, by id

    def add(self, tensor: Tensor, origin: Origin, path: str = "") -> None:
        """Make a tensor known that goes into the network."""
        constant = origin is Origin.BUFFER and not tensor.is_floating_point() and not tensor.is_complex()
        value = Value(tuple(tensor.shape), tensor.dtype, origin, path, tensor if constant else None)
        value.tensor = tensor if self.with_values else None
        self.given.append(value)
        self._know(tensor, value)
        if constant:
            self._memory.lifted(tensor, value)
        elif self.with_values:
            self._data.add(id(tensor.untyped_storage()))

    def value_of(self, tensor: Tensor) -> Value:
        """Return the value that a tensor is; a constant becomes one that is given."""
        found = self._values.get(id(tensor)) or self._alias(tensor)
        if found is None:
            kept = compact(tensor.clone() if self.with_values else tensor)
            value = Value(tuple(tensor.shape), tensor.dtype, Origin.CONSTANT, constant=kept)
            value.tensor = tensor if self.with_values else None
            self.given.append(value)
            self._know(tensor, value)
            self._memory.lifted(tensor, value)
            return value
        return found

    def is_data(self, tensor: Tensor) -> bool:
        """Whether a tensor's numbers depend on what goes into the network."""
        return tensor.is_meta or id(tensor.untyped_storage()) in self._data

    def close(self) -> None:
        """Put back what the code has written into tensors that are not of this run."""
        self._memory.restore()

    supports_higher_order_operators = True

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        settings, called = kwargs or {}, operator(func)
        if called.takes_functions:
            return self._on_graphs(called, args, settings)
        tensors = [each for each in flat([args, list(settings.values())]) if isinstance(each, Tensor)]
        if called.name.startswith("aten::new_") and called.name != "aten::new_empty":
            dtype, *rest = args[0].dtype, *args[1:]
            args, tensors = (torch.empty(0, dtype=dtype, device=self.device), *rest), []
        data = called.random or called.name in ("aten::empty", "aten::new_empty", "aten::empty_strided")
        if data or any(map(self.is_data, tensors)) or _is_large(called, args):
            return self._on_data(called, args, settings, tensors)
        return self._on_constants(called, args, settings)

    def _on_constants(self, called: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Compute what does not depend on data. It may outlive the run, in a cache: then it can be trained with."""
        for name in called.writes:
            for tensor in flat(called.bound(args, kwargs)[name]):
                for identity in self._memory.about_to_write(tensor):
                    self._values.pop(identity, None)
        with torch.inference_mode(False), torch.no_grad():
            result = called.target(*_on(self.device, args), **{k: _on(self.device, v) for k, v in kwargs.items()})
        made = [each for each in flat(result) if isinstance(each, Tensor)]
        if called.is_view:
            self._memory.viewed(called, args, kwargs, made)
        elif not called.writes:
            self._memory.own(made)
        return result

    def _on_data(self, called: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: list[Tensor]) -> Any:
        if not called.returns_tensors:
            raise ValueDependenceError(f"{called.name} asks for values that depend on the network's input")
        if called.name.startswith("aten::index"):
            args = self._without_masks(args)
        elif called.sized_by_values:
            raise ValueDependenceError(f"{called.name} gives as much as values say")
        written = [each for name in called.writes for each in flat(called.bound(args, kwargs)[name])]
        for tensor in written:
            if not self.is_data(tensor):
                self._commit(tensor)
                self._memory.keep(tensor)
        operands = list[Value]()
        arguments = self._bound(called, args, kwargs, operands)
        result = self._computed(called, args, kwargs, tensors)
        self._data.update(id(each.untyped_storage()) for each in written if not each.is_meta)
        if self.with_values:
            self._data.update(id(each.untyped_storage()) for each in flat(result) if isinstance(each, Tensor))
        self._note(called, arguments, operands, result)
        return result

    def _computed(self, called: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: list[Tensor]) -> Any:
        """Run an operator on data; constants among them stand there as meta tensors."""
        if self.with_values:
            with _NoValues():  # type: ignore[no-untyped-call]
                return called.target(*args, **kwargs)
        if called.target in recurrent.OPERATORS and len(args) == 9:
            return recurrent.outputs(args)
        real = {id(self._stand_in(each)): each for each in tensors if not each.is_meta}
        given = replaced(_on(META, args), Tensor, self._stand_in)
        settings = {k: replaced(_on(META, v), Tensor, self._stand_in) for k, v in kwargs.items()}
        if "device" in called.keywords and not tensors:
            settings["device"] = META
        result = called.target(*given, **settings)
        if not real:
            return result
        return (
            type(result)(real.get(id(r), r) for r in result)
            if isinstance(result, list | tuple)
            else real.get(id(result), result)
        )

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return tensor
        found = self._stand_ins.get(id(tensor))
        if found is None or found.shape != tensor.shape:
            found = torch.empty_strided(tensor.size(), _strides(tensor), dtype=tensor.dtype, device=META)
            self._stand_ins[id(tensor)] = found
            self._held.append(tensor)
        return found

    def _on_graphs(self, called: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Note an operator that takes functions: what it does inside is not seen. Of a choice one branch is run."""
        branch = called.name == "python::cond"
        result = args[1](*args[3]) if branch else called.target(*args, **kwargs)
        operands = [self.value_of(each) for each in flat(list(args)) if isinstance(each, Tensor)]
        self._note(called, {"operands": operands}, operands, result)
        return result

    def _without_masks(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the arguments of an index operator with the positions that a constant mask selects in its place."""
        indices = list[Any]()
        for each in args[1] if isinstance(args[1], list | tuple) else []:
            if not isinstance(each, Tensor) or each.dtype not in (torch.bool, torch.uint8):
                indices.append(each)
            elif self.is_data(each):
                raise ValueDependenceError("an index is a mask of values that depend on the network's input")
            else:
                indices.extend(each.nonzero(as_tuple=True))
        return (args[0], indices, *args[2:]) if indices else tuple(args)

    def _commit(self, tensor: Tensor) -> None:
        """Data are written into a constant: note how its memory has been viewed so far."""
        for called, args, kwargs, results in self._memory.views_of(tensor):
            operands = list[Value]()
            self._note(called, self._bound(called, args, kwargs, operands), operands, results)

    def _bound(
        self, called: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], operands: list[Value]
    ) -> dict[str, Any]:
        """Return the arguments by name, values in the place of tensors, which go into `operands` as well."""

        def known(tensor: Tensor) -> Value:
            operands.append(found := self.value_of(tensor))
            return found

        return {k: replaced(_on(self.device, v), Tensor, known) for k, v in called.bound(args, kwargs).items()}

    def _note(self, called: Operator, arguments: dict[str, Any], operands: list[Value], result: Any) -> None:
        place = tuple(filter(None, self.scopes))
        operation = Operation(len(self.operations) + 1, called, arguments, operands, [], place, _line())
        for operand in dict.fromkeys(operands):
            operand.readers.append(operation)
        for tensor in flat(result):
            if isinstance(tensor, Tensor):
                value = Value(tuple(tensor.shape), tensor.dtype, maker=operation)
                value.tensor = tensor if self.with_values else None
                value.constant = None if self.is_data(tensor) else compact(tensor)
                operation.results.append(value)
                self._know(tensor, value)
        self.operations.append(operation)

    def _know(self, tensor: Tensor, value: Value) -> None:
        self._values[id(tensor)] = value
        self._held.append(tensor)

    def _alias(self, tensor: Tensor) -> Value | None:
        """Return the value of another tensor object on the same memory, laid out alike."""
        if not self.is_data(tensor):
            return None
        key = _layout(tensor)
        for other in reversed(self._held):
            if isinstance(other, Tensor) and id(other) in self._values and _layout(other) == key:
                return self._values[id(other)]
        raise ValueDependenceError("a tensor was made behind torch's back (from numpy, or by an extension)")


class _Constants:
    """The memory of constants: what views it, who has read it, and what stood there before this run."""

    def __init__(self) -> None:
        self._held: list[Any] = []
        self._own: set[int] = set()  # ids of storages that this run has made
        self._views: dict[int, list[Any]] = {}
        self._lifted: dict[int, list[tuple[int, Value]]] = {}
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def own(self, tensors: Sequence[Tensor]) -> None:
        """These are this run's own."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) not in self._own:
                self._own.add(id(storage))
                self._held.append(storage)

    def viewed(self, called: Operator, args: Any, kwargs: Any, results: list[Tensor]) -> None:
        """A constant is seen in another shape."""
        if results:
            storage = results[0].untyped_storage()
            self._held.append(storage)
            self._views.setdefault(id(storage), []).append((called, args, kwargs, results))

    def views_of(self, tensor: Tensor) -> list[Any]:
        """Return the calls that have viewed a constant's memory, once."""
        return self._views.pop(id(tensor.untyped_storage()), [])

    def lifted(self, tensor: Tensor, value: Value) -> None:
        """A constant has met data."""
        storage = tensor.untyped_storage()
        self._held.append(storage)
        self._lifted.setdefault(id(storage), []).append((id(tensor), value))

    def about_to_write(self, tensor: Tensor) -> Iterator[int]:
        """Keep the values that were read before the write; yield the ids of the tensors that are other values now."""
        storage = tensor.untyped_storage()
        self._held.append(storage)
        for identity, value in self._lifted.pop(id(storage), []):
            value.constant = None if value.constant is None else value.constant.clone()
            yield identity
        self.keep(tensor)

    def keep(self, tensor: Tensor) -> None:
        """Remember what stood in memory that is not of this run."""
        storage = tensor.untyped_storage()
        if id(storage) not in self._own and id(storage) not in self._before:
            self._before[id(storage)] = tensor, tensor.detach().clone()

    def restore(self) -> None:
        """Write back what was there."""
        for tensor, before in self._before.values():
            tensor.copy_(before)


class Functions(TorchFunctionMode):
    """Sees the functions that no dispatch mode sees: those that make constants of Python's numbers, on the device where
    data are, and those that would take the values of data out of torch, which are refused."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, settings = getattr(func, "__name__", ""), kwargs or {}
        if name in ESCAPES and isinstance(args[0], Tensor) and self.recorder.is_data(args[0]):
            raise ValueDependenceError(f"Tensor.{name} asks for values that depend on the network's input")
        if name == "new_tensor":
            return torch.tensor(args[1], dtype=settings.get("dtype", args[0].dtype), device=self.recorder.device)
        if name in MAKERS and settings.get("device") is not None:
            settings = {**settings, "device": self.recorder.device}
        return func(*args, **settings)


class _NoValues(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operators inside an operator whose result depends on values in its size."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if torch.Tag.dynamic_output_shape in func.tags and "index" not in str(func):
            raise ValueDependenceError(f"{func} gives as much as values say")
        return func(*args, **(kwargs or {}))


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    return id(tensor.untyped_storage()), tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype


def _strides(tensor: Tensor) -> Sequence[int]:
    """Return the strides of a tensor, those of a dense one where elements share memory."""
    shared = any(size > 1 and not stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return torch.empty(tensor.shape, device=META).stride() if shared else tensor.stride()


def _is_large(called: Operator, args: Sequence[Any]) -> bool:
    """Whether an operator makes a large tensor of nothing."""
    size = next((each for each in args if isinstance(each, list | tuple)), ())
    count = 1
    for each in size:
        count *= each if isinstance(each, int) else 1
    return count > LARGE and "device" in called.keywords


def _on(device: torch.device, value: Any) -> Any:
    """Return an argument with the meta device, or any where data go, replaced by `device`."""
    if isinstance(value, torch.device) and (device == META or value == META):
        return device
    if type(value) in (list, tuple):
        return type(value)(_on(device, item) for item in value)
    return value


def _line() -> str:
    """Return "file:line" of the innermost code that is neither torch's nor of this package's reader."""
    frame = sys._getframe(3)
    while frame is not None and frame.f_code.co_filename.startswith(FOREIGN):
        frame = frame.f_back  # type: ignore[assignment]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else ""

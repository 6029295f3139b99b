"""The Python functions that may run with a network, and the state that they keep outside of it."""

import contextlib
import copy
import functools
import inspect
import linecache
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from prunus.modules.attributes import kept

MOST_LINES = 20  # lines read of one statement
TORCH_LAYERS = "torch.nn.modules"
KNOWN = sys.stdlib_module_names | {"torch"}
CONTAINERS = (list, deque, set, dict, OrderedDict, defaultdict)


def names_read(kind: type) -> set[str]:
    """Return every name that the methods of a module's own classes mention."""
    return set[str]().union(*(_names(function.__code__) for function in _methods(kind)))


def statement(place: str) -> str:
    """Return the code at "file:line", up to the line that closes its brackets."""
    file, _, number = place.rpartition(":")
    text = ""
    for at in range(int(number), int(number) + MOST_LINES) if number.isdigit() else ():
        text += linecache.getline(file, at)
        if sum(text.count(opened) for opened in "([{") <= sum(text.count(closed) for closed in ")]}"):
            break
    return text


def place_of_name(model: nn.Module, names: Iterable[str]) -> tuple[str, str] | None:
    """Return (name, "file:line" of the function) of the first of `names` that code of `model` mentions."""
    for function in _functions(model):
        mentioned = _names(function.__code__)
        for name in names:
            if name in mentioned:
                return name, f"{function.__code__.co_filename}:{function.__code__.co_firstlineno}"
    return None


@contextlib.contextmanager
def surroundings_kept(model: nn.Module) -> Iterator[None]:
    """Restore at the end the state that the code of `model` keeps outside the network: in global variables, in default
    arguments and in closures, such as a hook's list of features or a table of positions."""
    held = _Held()
    for function in _functions(model):
        names = _names(function.__code__)
        held.add(function.__globals__[name] for name in names if name in function.__globals__)
        held.add(function.__defaults__ or ())
        for cell in filter(filled, function.__closure__ or ()):
            held.cells.append((cell, cell.cell_contents))
            held.add([cell.cell_contents])
    try:
        yield
    finally:
        held.restore()


class _Held:
    """Containers, objects and closure cells with their earlier contents."""

    def __init__(self) -> None:
        self.cells: list[tuple[types.CellType, Any]] = []
        self._contents: dict[int, tuple[Any, Any]] = {}

    def add(self, values: Iterable[Any]) -> None:
        """Record the contents of containers, nested ones too, and the attributes of objects of the user's classes."""
        waiting = list(values)
        while waiting:
            value = waiting.pop()
            if id(value) in self._contents or isinstance(value, Tensor | nn.Module | type):
                continue
            if type(value) in CONTAINERS:
                self._contents[id(value)] = value, copy.copy(value)
                waiting.extend(value.values() if isinstance(value, dict) else value)
            elif isinstance(value, tuple):
                waiting.extend(value)
            elif _is_own(type(value)) and type(getattr(value, "__dict__", None)) is dict:
                self._contents[id(value)] = vars(value), dict(vars(value))
                waiting.extend(vars(value).values())

    def restore(self) -> None:
        """Put the contents back."""
        for container, content in self._contents.values():
            if _differs(container, content):
                container.clear()
                container.extend(content) if isinstance(container, list | deque) else container.update(content)
        for cell, content in self.cells:
            if not filled(cell) or cell.cell_contents is not content:
                cell.cell_contents = content


def _differs(container: Any, content: Any) -> bool:
    """Return whether a container holds other objects than its copy."""
    if len(container) != len(content):
        return True
    if isinstance(container, dict):
        return any(key not in container or container[key] is not value for key, value in content.items())
    if isinstance(container, set):
        return bool(container != content)
    return any(a is not b for a, b in zip(container, content, strict=True))


def _is_own(kind: type) -> bool:
    return (kind.__module__ or "").partition(".")[0] not in KNOWN


def _functions(model: nn.Module) -> Iterator[types.FunctionType]:
    """Yield the functions that may run with `model`, those of torch and of Python's library aside: the methods of its
    modules, the hooks, functions and objects that these keep, and the functions and classes named in any of them."""
    objects = list(kept_objects(model))
    kinds = {type(module) for module in model.modules()} | {type(value) for value in objects}
    waiting, seen = [value for value in objects if isinstance(value, types.FunctionType)], set[types.FunctionType]()
    waiting += [each for kind in kinds if not kind.__module__.startswith(TORCH_LAYERS) for each in _methods(kind)]
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            waiting.extend(_called(function))
            yield function


def kept_objects(model: nn.Module) -> Iterator[Any]:
    """Yield the functions and objects that modules keep, hooks included; for a method, its function."""
    for module in model.modules():
        for _, value in kept(module):
            yield from _kept(value)


def _methods(kind: type) -> Iterator[types.FunctionType]:
    for cls in kind.__mro__:
        if cls is nn.Module:
            break
        for value in vars(cls).values():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            function = _unwrapped(function)
            if isinstance(function, types.FunctionType):
                yield function


def _kept(value: Any, depth: int = 4) -> Iterator[Any]:
    """Yield the functions and objects in nested containers, modules and tensors aside."""
    if not depth or isinstance(value, nn.Module | Tensor | type):
        return
    if isinstance(value, Mapping):
        value = list(value.values())
    elif isinstance(value, functools.partial):
        value = [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, list | tuple | set):
        for item in value:
            yield from _kept(item, depth - 1)
    else:
        yield getattr(value, "__func__", value)


def _called(function: types.FunctionType) -> Iterator[types.FunctionType]:
    """Yield the functions that a function names or encloses, and methods of such classes; not torch's and Python's."""
    names = _names(function.__code__)
    named = [function.__globals__[name] for name in names if name in function.__globals__]
    named += [cell.cell_contents for cell in function.__closure__ or () if filled(cell)]
    named += [vars(part).get(name) for part in named if isinstance(part, types.ModuleType) for name in names]
    for each in named:
        each = _unwrapped(each)
        if isinstance(each, types.FunctionType | type) and (each.__module__ or "").partition(".")[0] not in KNOWN:
            yield from [each] if isinstance(each, types.FunctionType) else _methods(each)


def _unwrapped(value: Any) -> Any:
    """Return the function behind its decorators."""
    try:
        return inspect.unwrap(value) if callable(value) else value
    except ValueError:  # an object with every attribute, `__wrapped__` included, unwraps without end
        return value


def filled(cell: types.CellType) -> bool:
    """Return whether a cell holds something other than None."""
    try:
        return cell.cell_contents is not None
    except ValueError:  # an empty cell, of a function that refers to itself and is not defined yet
        return False


@functools.cache
def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names in a function's code, including strings and the names in functions defined inside it."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    strings = (constant for constant in code.co_consts if isinstance(constant, str))
    return frozenset(code.co_names).union(strings, *inner)

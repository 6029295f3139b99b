"""What Python code mentions: the names in a module's methods, and in the functions that these call."""

import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

TORCH_LAYERS = "torch.nn.modules"
KNOWN = sys.stdlib_module_names | {"torch"}


def names_read(kind: type) -> set[str]:
    """Return every name that the methods of a module's own classes mention."""
    return set[str]().union(*(_names(function.__code__) for function in _methods(kind)))


@functools.cache
def reached(kind: type) -> frozenset[str]:
    """Return the names that a module's methods mention, and the functions and classes that these name in turn."""
    waiting, seen = list(_methods(kind)), set[types.FunctionType]()
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            waiting.extend(_called(function))
    return frozenset[str]().union(*(_names(function.__code__) for function in seen))


def mentions(model: nn.Module, name: str) -> bool:
    """Whether code that may run with `model` mentions `name`, torch's own layers aside.

    That is the methods of its modules, what these keep (hooks, functions, objects), and the functions and classes that
    all of these name.
    """
    kept = [value for module in model.modules() for value in _kept(vars(module))]
    kinds = {type(module) for module in model.modules()} | {type(value) for value in kept}
    waiting, seen = [value for value in kept if isinstance(value, types.FunctionType)], set[types.FunctionType]()
    waiting += [each for kind in kinds if not kind.__module__.startswith(TORCH_LAYERS) for each in _methods(kind)]
    while waiting:
        function = waiting.pop()
        if function not in seen:
            seen.add(function)
            if name in _names(function.__code__):
                return True
            waiting.extend(_called(function))
    return False


def _methods(kind: type) -> Iterator[types.FunctionType]:
    for cls in kind.__mro__:
        if cls is nn.Module:
            break
        for value in vars(cls).values():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
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
    """Yield the functions that one names or encloses, and the methods of the classes; torch's and Python's aside."""
    names = _names(function.__code__)
    named = [function.__globals__[name] for name in names if name in function.__globals__]
    named += [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
    named += [vars(part).get(name) for part in named if isinstance(part, types.ModuleType) for name in names]
    for each in named:
        each = _unwrapped(each)
        if isinstance(each, types.FunctionType | type) and (each.__module__ or "").partition(".")[0] not in KNOWN:
            yield from [each] if isinstance(each, types.FunctionType) else _methods(each)


def _unwrapped(value: Any) -> Any:
    """Return the function behind what decorates it."""
    try:
        return inspect.unwrap(value) if callable(value) else value
    except ValueError:  # an object that answers to every name is wrapped without end
        return value


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a function that refers to itself and is not there yet
        return False


@functools.cache
def _names(code: types.CodeType) -> frozenset[str]:
    """Return the names in a function's code, those of what it defines inside and of strings included."""
    inner = [_names(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    strings = (constant for constant in code.co_consts if isinstance(constant, str))
    return frozenset(code.co_names).union(strings, *inner)

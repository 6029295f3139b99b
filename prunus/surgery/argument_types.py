"""A check of arguments against annotations: a wrong argument is refused by name at the call."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, Union

from torch import Tensor, nn
from torch.optim import Optimizer

from prunus.errors import EditError
from prunus.modules.defaults import whatever_device

P = ParamSpec("P")
R = TypeVar("R")
_CALLED: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    Tensor: "a tensor",
    nn.Module: "a torch.nn.Module",
    Optimizer: "a torch.optim.Optimizer",
    Callable: "a function",
    Sequence: "a sequence",
    tuple: "a tuple",
    Mapping: "a mapping",
    types.NoneType: "None",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` with arguments checked against its annotations; it runs under any default device of torch.

    Raises:
        EditError: an argument does not match; the message names it, its required type and its actual type.
    """
    signature, run = inspect.signature(function), whatever_device(function)

    @functools.wraps(function)
    def checking(*args: P.args, **kwargs: P.kwargs) -> R:
        hints = _hints(function)
        try:
            given_by_name = signature.bind(*args, **kwargs).arguments
        except TypeError:  # too many or too few arguments: Python's own message, with the function's name
            return run(*args, **kwargs)
        for name, value in given_by_name.items():
            if not _fits(hints[name], value):
                given = repr(value) if isinstance(value, bool | int | float | str | None) else type(value).__name__
                raise EditError(f"{function.__name__}: {name} must be {_called(hints[name])}, not {given:.60}")
        return run(*args, **kwargs)

    return checking


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _fits(hint: Any, value: Any) -> bool:
    origin, arguments = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(option, value) for option in arguments)
    if origin is Any:
        return True
    if origin is float:
        return type(value) in (int, float)
    if origin in (int, bool):
        return type(value) is origin
    if origin is Callable:
        return callable(value) and not isinstance(value, nn.Module)  # a network is callable, but not meant here
    if origin is Sequence:
        return isinstance(value, Sequence) and all(_fits(arguments[0], item) for item in value)
    return isinstance(value, (tuple, list) if origin is tuple else origin)


def _called(hint: Any) -> str:
    origin = typing.get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return " or ".join(_called(option) for option in typing.get_args(hint))
    return _CALLED.get(origin, f"a {getattr(origin, '__name__', origin)}")

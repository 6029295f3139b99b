"""Operators on shapes alone, each run once: networks repeat themselves, and so do their modes and widths."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

PLAIN = (int, float, str, type(None), type(Ellipsis), torch.dtype, torch.device, torch.layout, torch.memory_format)
Made = tuple[torch.Size, tuple[int, ...], torch.dtype]  # how a tensor on the meta device was made


class Shapes:
    """Remembers the shapes, strides and dtypes that an operator gave, by those of its operands and its settings.

    It is run as it is where an operand has values, where something else than new tensors comes out, or where an
    argument is nothing that could be compared.
    """

    def __init__(self) -> None:
        self._known: dict[Any, tuple[type, list[Made]] | None] = {}

    def of(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return what `function` gives, on the meta device."""
        try:
            key = function, _key(args), _key(kwargs)
            known = self._known.get(key, ())
        except _IncomparableError:
            return function(*args, **kwargs)
        if known:
            kind, made = known
            tensors = [torch.empty_strided(size, stride, dtype=dtype, device="meta") for size, stride, dtype in made]
            return tensors[0] if kind is Tensor else kind(tensors)
        result = function(*args, **kwargs)
        if known == ():
            self._known[key] = _made(result, [*args, *kwargs.values()])
        return result


class _IncomparableError(Exception):
    """An argument that tells nothing by its shape."""


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        if not value.is_meta or not _is_plain(value):
            raise _IncomparableError
        return value.shape, value.stride(), value.dtype
    if isinstance(value, list | tuple):
        return type(value), *map(_key, value)
    if isinstance(value, Mapping):
        return tuple((name, _key(item)) for name, item in value.items())
    if isinstance(value, slice):
        return slice, _key(value.start), _key(value.stop), _key(value.step)
    if isinstance(value, PLAIN):
        return type(value), value
    raise _IncomparableError


def _is_plain(tensor: Tensor) -> bool:
    """Whether nothing but shape, strides and dtype is to be known of a tensor."""
    return tensor.layout is torch.strided and not tensor.is_complex()


def _made(result: Any, given: list[Any]) -> tuple[type, list[Made]] | None:
    """Return how new tensors are made; None where there are others, or none."""
    kind = Tensor if type(result) is Tensor else type(result)
    results = [result] if kind is Tensor else list(result) if kind in (list, tuple) else []
    for tensor in results:
        if type(tensor) is not Tensor or not tensor.is_meta or any(tensor is other for other in given):
            return None
        if not _is_plain(tensor):
            return None
    if not results or not any(isinstance(value, Tensor) for value in _flat(given)):
        return None
    return kind, [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in results]


def _flat(values: list[Any]) -> list[Any]:
    return [item for value in values for item in (value if isinstance(value, list | tuple) else [value])]

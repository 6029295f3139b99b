"""Functions that enclose modules of a network: a copy of the network needs functions that enclose the copies."""

import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from prunus.modules.code import filled, kept_objects


class Closures:
    """New functions that replace those of a network that enclose its modules (mostly hooks).

    Attributes:
        memo: the new function by the id of the old one, for `copy.deepcopy`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.memo: dict[int, Any] = {}
        self._cells: dict[int, tuple[types.CellType, types.CellType]] = {}  # old and new, by id of the old
        modules = set(map(id, model.modules()))
        for value in kept_objects(model):
            if isinstance(value, types.FunctionType) and _encloses(value, modules):
                self._renew(value, modules)

    def fill(self, copies: Mapping[int, Any]) -> None:
        """Let the new functions enclose the module in `copies` for each old module, by the id of the old one."""
        for old, new in self._cells.values():
            if filled(old):
                content = old.cell_contents
                new.cell_contents = (
                    copies[id(content)]
                    if isinstance(content, nn.Module) and id(content) in copies
                    else self.memo.get(id(content), content)
                )

    def _renew(self, function: types.FunctionType, modules: set[int]) -> None:
        cells = [self._cells.setdefault(id(old), (old, types.CellType()))[1] for old in function.__closure__ or ()]
        new = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
        )
        new.__kwdefaults__, new.__dict__ = function.__kwdefaults__, dict(function.__dict__)
        self.memo[id(function)] = new
        for inner in _enclosed(function):
            if isinstance(inner, types.FunctionType) and id(inner) not in self.memo and _encloses(inner, modules):
                self._renew(inner, modules)


def _encloses(function: types.FunctionType, modules: set[int], depth: int = 3) -> bool:
    """Return whether a function, or a function that it encloses, encloses one of `modules` (ids)."""
    return any(
        id(value) in modules
        or (depth > 0 and isinstance(value, types.FunctionType) and _encloses(value, modules, depth - 1))
        for value in _enclosed(function)
    )


def _enclosed(function: types.FunctionType) -> Iterator[Any]:
    return (cell.cell_contents for cell in function.__closure__ or () if filled(cell))

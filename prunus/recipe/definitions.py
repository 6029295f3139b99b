"""Determine the names that a module's source defines, without importing the module or its parents."""

import ast
import builtins
import dataclasses
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from prunus.decoding import MIB, read_bytes

MAX_DEPTH = 50  # of a chain of base classes and imports


@dataclasses.dataclass(frozen=True)
class Definitions:
    """The names that a module's source defines.

    Attributes:
        module: the module's dotted path.
        names: the statement that defines each name; None where the name is defined more than once or inside another
            statement.
        complete: False if the module may define further names (`import *`, `__getattr__`, `globals()`).
        is_package: whether relative imports start at the module itself.
    """

    module: str
    names: dict[str, ast.stmt | None]
    complete: bool = True
    is_package: bool = False


def is_subclass(path: str, base: type, depth: int = 0) -> bool | None:
    """Return whether the dotted `path` names a subclass of `base`; None if the source does not determine it.

    A module that is already imported is inspected directly.
    """
    module, _, name = path.rpartition(".")
    if module in sys.modules:
        if not hasattr(sys.modules[module], name):
            return None
        found = getattr(sys.modules[module], name)
        return isinstance(found, type) and issubclass(found, base)
    known = definitions(module)
    if known is None or depth > MAX_DEPTH:
        return None
    statement = known.names.get(name)
    if isinstance(statement, ast.ClassDef):
        if base is object:
            return True
        found_bases = {_is_subclass(known, each, base, depth) for each in statement.bases}
        return True if True in found_bases else None if None in found_bases else False
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    if isinstance(statement, ast.Import | ast.ImportFrom):
        target = _imported(known, statement, name)
        return None if target is None else is_subclass(target, base, depth + 1)
    if isinstance(statement, ast.Assign):
        return _is_subclass(known, statement.value, base, depth)
    return None if statement is not None or name in known.names or not known.complete else False


def _is_subclass(known: Definitions, expression: ast.expr, base: type, depth: int) -> bool | None:
    if isinstance(expression, ast.Constant | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.Lambda):
        return False
    while isinstance(expression, ast.Subscript):  # Generic[T]
        expression = expression.value
    if isinstance(expression, ast.Name) and expression.id not in known.names and known.complete:
        found = getattr(builtins, expression.id, None)
        return isinstance(found, type) and issubclass(found, base)
    target = _dotted(known, expression)
    return None if target is None else is_subclass(target, base, depth + 1)


def _dotted(known: Definitions, expression: ast.expr) -> str | None:
    """Return the dotted path that an expression in a module refers to; None if it is not a name."""
    if isinstance(expression, ast.Name):
        statement = known.names.get(expression.id)
        if isinstance(statement, ast.Import | ast.ImportFrom):
            return _imported(known, statement, expression.id)
        return f"{known.module}.{expression.id}"
    if isinstance(expression, ast.Attribute) and (inside := _dotted(known, expression.value)) is not None:
        return f"{inside}.{expression.attr}"
    return None


def _imported(known: Definitions, statement: ast.Import | ast.ImportFrom, name: str) -> str | None:
    """Return the dotted path that an import binds to `name`."""
    alias = next(each for each in statement.names if (each.asname or each.name.split(".")[0]) == name)
    if isinstance(statement, ast.Import):
        return alias.name if alias.asname else name
    parents = known.module.split(".")
    up = statement.level - known.is_package
    if up > len(parents):
        return None
    above = parents[: len(parents) - up] if statement.level else []
    return ".".join([*above, *([statement.module] if statement.module else []), alias.name])


def definitions(module: str) -> Definitions | None:
    """Return what a module's source defines; None if the module is already imported, not found, or has no source."""
    spec = _found(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return _read(module, spec.origin, spec.submodule_search_locations is not None)


def _read(module: str, origin: str, is_package: bool) -> Definitions | None:
    try:
        tree = ast.parse(read_bytes(Path(origin), 8 * MIB))
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
        return None  # the import raises the proper error
    names = dict[str, ast.stmt | None]()
    for name, statement in _defined(tree.body):
        names[name] = None if name in names else statement
    complete = names.keys().isdisjoint({"*", "__getattr__"})
    return Definitions(module, names, complete, is_package)


def _defined(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt | None]]:
    """Yield each name with its top-level statement, or None for a nested one; "*" stands for unknown names."""
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name, statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (((each.asname or each.name.split(".")[0]), statement) for each in statement.names)
        else:
            alone = isinstance(statement, ast.Assign) and all(isinstance(each, ast.Name) for each in statement.targets)
            yield from ((name, statement if alone else None) for name in _inside(statement))


def _inside(statement: ast.stmt) -> Iterator[str]:
    """Yield the names that an assignment or a compound statement (if, try, with) may define."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (each.asname or each.name.split(".")[0] for each in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("globals", "exec"):
            yield "*"


def _found(module: str) -> ModuleSpec | None:
    """Return a module's spec without importing its parents; None if it is already imported or not found."""
    spec: ModuleSpec | None = None
    locations: Any = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name in sys.modules:
            spec, locations = None, getattr(sys.modules[name], "__path__", None)
            continue
        if end > 1 and locations is None:  # the parent is not a package
            return None
        finders = (finder.find_spec(name, locations) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in finders if found is not None), None)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
    return spec

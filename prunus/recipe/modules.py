"""Classes by their dotted path. A module is imported only once it is known that it has such a name.

Importing runs a module: a recipe that names `os.system` or a package that was never meant must not get that far. So the
module is found without being run, its source is read, and its import follows only where the name is defined there.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from prunus.decoding import MIB, read_bytes

ANY = "*"  # what a module has cannot be told from its source


def named(path: str) -> Any:
    """Return what the dotted `path`, package.module.Name, names.

    Raises:
        ImportError: it is no such path, there is no such module, or importing it fails.
        AttributeError: the module has no such name; the names of its classes are the error's `known`.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ImportError("it is no dotted path, as in package.module.Class")
    spec = _found(module_name)
    known = {ANY} if spec is None else _names(spec)
    if name not in known and ANY not in known:
        raise _missing(module_name, name, sorted(known))
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise
    except Exception as error:  # whatever the module's own code raises
        raise ImportError(f"importing it fails: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise _missing(module_name, name, [key for key, item in vars(module).items() if isinstance(item, type)])
    return getattr(module, name)


def _missing(module: str, name: str, known: list[str]) -> AttributeError:
    error = AttributeError(f"{module} has no {name}")
    vars(error)["known"] = known
    return error


def _found(module: str) -> ModuleSpec | None:
    """Return where a module lies, without running it or its parents; None where it is loaded, or nobody finds it."""
    spec, locations = None, None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        if name in sys.modules:
            spec, locations = None, getattr(sys.modules[name], "__path__", None)
            continue
        finders = (finder.find_spec(name, locations) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for found in finders if found is not None), None)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
    return spec


def _names(spec: ModuleSpec) -> set[str]:
    """Return the names that a module's source defines; `ANY` where it may have others."""
    if spec.origin is None or not spec.origin.endswith(".py"):
        return {ANY}
    try:
        tree = ast.parse(read_bytes(Path(spec.origin), 8 * MIB))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return {ANY}  # the import says what is wrong with it
    found = set(_defined(tree.body))
    return {ANY} if "__getattr__" in found else found


def _defined(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield statement.name
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield from (ANY if each.name == "*" else each.asname or each.name.split(".")[0] for each in statement.names)
            continue
        for node in ast.walk(statement):  # assignments, and what stands in an if, a try or a with
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield node.name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                yield from _defined([node])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("globals", "exec"):
                yield ANY

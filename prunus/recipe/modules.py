"""Resolve a dotted path. A module is imported only if its source defines the name and may provide the needed class.

Importing runs a module's code, so a recipe that names the wrong package, or `os.system`, is refused before that.
"""

import importlib
from collections.abc import Iterable
from typing import Any

from prunus.recipe.definitions import definitions, is_subclass


class MisfitError(Exception):
    """The path does not name a subclass of the needed class."""


def named(path: str, base: type | None = None) -> Any:
    """Return the object that the dotted `path`, package.module.Name, names.

    Args:
        path: path of any object at the top of a module.
        base: the class of which it must be a subclass (`object`: any class); None: any object.

    Raises:
        ImportError: `path` is not dotted, there is no such module, or its import fails.
        AttributeError: the module has no such name; the error's `known` holds its names.
        MisfitError: the object is not a subclass of `base`.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ImportError("it is not a dotted path, as in package.module.Class")
    known = definitions(module_name)
    if known is not None and known.complete and name not in known.names:
        raise _missing(module_name, name, known.names)
    if base is not None and is_subclass(path, base) is False:
        raise MisfitError(path)
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise
    except Exception as error:  # any error of the module's own code
        raise ImportError(f"importing it fails: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise _missing(module_name, name, (key for key, item in vars(module).items() if isinstance(item, type)))
    found = getattr(module, name)
    if base is not None and not (isinstance(found, type) and issubclass(found, base)):
        raise MisfitError(path)
    return found


def _missing(module: str, name: str, known: Iterable[str]) -> AttributeError:
    error = AttributeError(f"{module} has no {name}")
    vars(error)["known"] = sorted(known)
    return error

"""What a dotted path names. A module is imported only once its source shows that the name is there, and may fit.

Importing runs a module: a recipe that names `os.system`, or a package that was never meant, must not get that far.
"""

import importlib
from collections.abc import Iterable
from typing import Any

from prunus.recipe.definitions import definitions, is_made_from


class MisfitError(Exception):
    """What a path names is no class of the kind that is needed."""


def named(path: str, base: type | None = None) -> Any:
    """Return what the dotted `path`, package.module.Name, names.

    Args:
        path: of any object at the top of a module.
        base: what it must be made from, `object` for any class; None: it need not be a class.

    Raises:
        ImportError: it is no such path, there is no such module, or importing it fails.
        AttributeError: the module has no such name; the names that it has are the error's `known`.
        MisfitError: it is no class made from `base`.
    """
    module_name, _, name = path.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in path.split(".")):
        raise ImportError("it is no dotted path, as in package.module.Class")
    known = definitions(module_name)
    if known is not None and known.complete and name not in known.names:
        raise _missing(module_name, name, known.names)
    if base is not None and is_made_from(path, base) is False:
        raise MisfitError(path)
    try:
        module = importlib.import_module(module_name)
    except ImportError:
        raise
    except Exception as error:  # whatever the module's own code raises
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

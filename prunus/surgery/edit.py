"""An edit: one change of a network as plain data. Kinds of edits are registered by name, so that JSON can be read."""

import abc
import dataclasses
import inspect
from typing import ClassVar

from torch import Tensor, nn

from prunus.errors import EditError

_REGISTRY: dict[str, type["Edit"]] = {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit(abc.ABC):
    """One change of a network. A kind of edit is one file: a frozen dataclass of plain data with these methods.

    Attributes:
        edit_name: the kind's name in JSON and in records; the class's name unless its body sets another.
    """

    edit_name: ClassVar[str]

    def __init_subclass__(cls) -> None:
        """Register the kind of edit, so that plans from JSON know it."""
        super().__init_subclass__()
        cls.edit_name = vars(cls).get("edit_name", cls.__name__)
        other = _REGISTRY.setdefault(cls.edit_name, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise EditError(
                f"{cls.__module__}.{cls.__qualname__}: the edit {other.__module__}.{other.__qualname__} has the name "
                f"{cls.edit_name!r} already, and plans are read by it: choose another"
            )
        _REGISTRY[cls.edit_name] = cls  # running a notebook's cell again defines the same class again

    @property
    @abc.abstractmethod
    def exact(self) -> bool:
        """Whether the function is kept up to rounding, if the edit's own conditions hold."""

    @property
    def made_anew(self) -> tuple[str, ...]:
        """Paths of the modules whose parameters are replaced by new ones; a layer that is cut keeps its own."""
        return ()

    @abc.abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """Return a changed copy of `model`; raise `EditError` with `model` untouched."""

    def num_created(self) -> int:
        """Return the number of new weights, for edits that may add more weights than the network has."""
        return 0

    @abc.abstractmethod
    def summary(self) -> str:
        """Describe the edit in one line."""

    def carry(self, path: str, tensor: Tensor) -> Tensor | None:
        """Return a tensor shaped like the parameter at `path` as the edit changes it; None if the edit replaces the
        parameter by another."""
        return None if any(path.startswith(f"{module}.") for module in self.made_anew) else tensor


def edit_types() -> dict[str, type[Edit]]:
    """Return every kind of edit by its name in JSON."""
    return {name: cls for name, cls in sorted(_REGISTRY.items()) if not inspect.isabstract(cls)}

"""`Layer`, which identifies a layer in an edit; edits that replace layers, and checks that a layer can be replaced."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from prunus.errors import EditError
from prunus.modules.copying import replaced
from prunus.modules.kinds import LinearLayer, is_plain, kind_of, members
from prunus.modules.paths import module_at
from prunus.modules.ties import tied_with
from prunus.surgery.edit import Edit
from prunus.surgery.factors import Factors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer named by an edit, with its kind and shape, so that a plan for another network is refused."""

    path: str
    kind: str  # torch's class name: "Conv2d", ...
    shape: tuple[int, ...]  # the weight's shape
    groups: int = 1

    def __post_init__(self) -> None:
        """Refuse a description that no layer can have: plans are read from files."""
        ranks = {kind.__name__: 2 if kind is nn.Linear else 2 + int(kind.__name__[-2]) for kind in members(LinearLayer)}
        if self.kind not in ranks or ranks[self.kind] != len(self.shape) or min(self.shape) < 1 or self.groups < 1:
            raise EditError(
                f"{self.path}: no layer is a {self.kind} of shape {list(self.shape)} in {self.groups} groups"
            )

    @property
    def sizes(self) -> tuple[int, int, tuple[int, ...]]:
        """Return (out / groups, in / groups, kernel)."""
        first, second, *kernel = self.shape
        if self.kind.startswith("ConvTranspose"):
            return second, first // self.groups, tuple(kernel)
        return first // self.groups, second, tuple(kernel)

    def find(self, model: nn.Module) -> Any:
        """Return the layer in `model`.

        Raises:
            EditError: there is no layer at the path, it is of another kind or shape, or it cannot be replaced.
        """
        module = module_at(model, self.path)
        if kind_of(module) != self.kind:
            raise EditError(
                f"{self.path} is a {type(module).__name__}, the plan is for a {self.kind}: it was made for another "
                "network, or was applied already"
            )
        if reason := refusal(model, self.path, module):
            raise EditError(f"{self.path}: {reason}")
        found, groups = tuple(module.weight.shape), getattr(module, "groups", 1)
        if found != self.shape or groups != self.groups:
            raise EditError(
                f"{self.path}.weight has shape {list(found)} in {groups} groups, the plan is for {list(self.shape)} in "
                f"{self.groups}: it was made for another network, or was applied already"
            )
        return module

    def __str__(self) -> str:
        """Return a short description for summaries."""
        return f"{self.path} ({self.kind} {' x '.join(map(str, self.shape))})"


def layer_at(path: str, module: Any) -> Layer:
    """Return the `Layer` that names `module`."""
    kind = kind_of(module)
    assert kind is not None
    return Layer(path=path, kind=kind, shape=tuple(module.weight.shape), groups=getattr(module, "groups", 1))


def refusal(model: nn.Module, path: str, module: Any) -> str | None:
    """Return why the layer at `path` cannot be replaced by layers that compute the same, None if it can."""
    if not path:
        return "it is the network itself; put it in an nn.Sequential"
    if is_parametrized(module) or not isinstance(vars(module)["_parameters"].get("weight"), nn.Parameter):
        return "its weight is computed from something else (a parametrisation); remove that first"
    if is_lazy(module.weight):
        return "it is lazy and has no shape yet: run the network once"
    if not module.weight.is_floating_point():
        return f"its weight is of {module.weight.dtype}"
    if not is_plain(module, LinearLayer):
        return f"{type(module).__name__} computes something of its own, so it is not replaced"
    parent = model.get_submodule(path.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention | nn.TransformerEncoderLayer):
        return f"{type(parent).__name__} reads its weight itself, so it cannot be replaced"
    other = tied_with(model, module)
    return (
        None if other is None else f"its parameters are also those of {other or 'the network itself'}: untie them first"
    )


def still_expanded(model: nn.Module, path: str) -> str | None:
    """Return why a factor of an expanded layer cannot be reshaped on its own, None for other layers."""
    parts = path.split(".")
    for parent in (".".join(parts[:length]) for length in range(1, len(parts))):
        module = model.get_submodule(parent)
        if isinstance(module, Factors) and module.origin == "expand":
            return f"it is a factor of {parent}, which is expanded: contract {parent} first"
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplaceModules(Edit):
    """An edit that only replaces modules by others.

    Consecutive edits of this kind share one copy of the network. The edit's fields name the replaced modules: every
    `Layer`, or else the module at `path`.
    """

    @property
    def made_anew(self) -> tuple[str, ...]:
        """Paths of the layers, or of the module, that are replaced."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        each = [one for value in values.values() for one in (value if isinstance(value, tuple) else (value,))]
        layers = tuple(one.path for one in each if isinstance(one, Layer))
        if not layers and "path" not in values:
            raise EditError(f"{self.edit_name}: no field names what it replaces: add `path`, or one of type Layer")
        return layers or (values["path"],)

    @abc.abstractmethod
    def successors(self, model: nn.Module) -> Mapping[str, nn.Module]:
        """Return the new modules by the paths that they are put at; raise `EditError` if the edit does not fit."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` with the modules replaced by their successors."""
        return replaced(model, self.successors(model))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplaceLayer(ReplaceModules):
    """An edit that replaces one layer by linear factors."""

    layer: Layer

    def successors(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the factors by the layer's path."""
        return {self.layer.path: self.factors(self.layer.find(model))}

    @abc.abstractmethod
    def factors(self, old: Any) -> Factors:
        """Return the factors that replace the layer `old`; raise `EditError` if it has no such factors."""

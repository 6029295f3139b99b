"""Contract: consecutive linear layers become one layer that computes the same, up to rounding.

This includes biases, strides, dilation, groups and image borders; `prunus.surgery.compose` has the formulas. Layers
that cannot be one (a non-linear module between them, a padding behind a kernel) are refused, with the place.
"""

import dataclasses
import fnmatch
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.modules.kinds import kind_of
from prunus.modules.paths import module_at, paths_of
from prunus.surgery.argument_types import checked
from prunus.surgery.choosing import Layers, patterns_of
from prunus.surgery.compose import compose_all
from prunus.surgery.factors import Factors, built, chain, is_pad
from prunus.surgery.filters import Filter, padding_of, read, shapes, values
from prunus.surgery.layers import Layer, ReplaceModules, layer_at, refusal
from prunus.surgery.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContractLayers(ReplaceModules):
    """Multiply the layers `factors`, which run one after the other inside the `nn.Sequential` at `path`.

    A container that an earlier edit made of a layer is replaced by the product. In an `nn.Sequential` of the user's own
    the product replaces the first factor, and an `nn.Identity` each other factor.
    """

    edit_name: ClassVar[str] = "Contract"
    exact: ClassVar[bool] = True
    path: str
    factors: tuple[Layer, ...]

    def _members(self, model: nn.Module) -> list[tuple[str, nn.Module]]:
        """Return the path and the module of each factor and of each padding between them."""
        if len(self.factors) < 2:
            raise EditError(f"{self.path}: at least two factors are contracted, got {len(self.factors)}")
        modules = [factor.find(model) for factor in self.factors]
        members = _run(_sequential(model, self.path), self.path, modules[0], modules[-1])
        if [path for path, module in members if not is_pad(module)] != [factor.path for factor in self.factors]:
            raise EditError(
                f"{self.path}: {', '.join(factor.path for factor in self.factors)} do not follow each other there: the "
                "plan was made for another network"
            )
        return members

    def successors(self, model: nn.Module) -> dict[str, nn.Module]:
        """Return the modules that replace the factors."""
        container, members = _sequential(model, self.path), self._members(model)
        modules = [module for _, module in members if not is_pad(module)]
        whole = isinstance(container, Factors)
        if not whole:
            _check_used_once(model, members)
        layers = built(_product(members), modules[0])
        new: nn.Module = layers[0] if len(layers) == 1 else nn.Sequential(*layers).train(modules[0].training)
        if whole:
            return {self.path: new.train(container.training)}
        rest = {path: nn.Identity().train(module.training) for path, module in members if module is not modules[0]}
        return {self.factors[0].path: new, **rest}

    def summary(self) -> str:
        """Describe the edit in one line."""
        return f"contract {', '.join(map(str, self.factors))} into one layer"


@checked
def contract(model: nn.Module, layers: Layers | None = None) -> Plan:
    """Return the plan that contracts each run of consecutive linear layers into one; the function is kept.

    Args:
        model: any network; it is not changed.
        layers: None for every layer that `expand` replaced; or globs over the dotted paths of layers that `expand`,
            `decompose` or `factorize` replaced; or the exact path of an `nn.Sequential` of your own ("" if the model is
            one), in which all directly consecutive linear layers are contracted.

    Raises:
        EditError: there is nothing to contract, or a non-linear module or a padding is in between (it is named).
    """
    edits = [edit for path in _containers(model, layers) for edit in _contracted(model, path)]
    if not edits:
        raise EditError(f"nothing in {type(model).__name__} was expanded, so there is nothing to contract")
    return Plan(tuple(edits))


def _containers(model: nn.Module, layers: Layers | None) -> list[str]:
    """Return the paths to contract, none inside another."""
    sequential = {path: module for path, module in model.named_modules() if isinstance(module, nn.Sequential)}
    own = {path: module for path, module in sequential.items() if isinstance(module, Factors)}
    if layers is None:
        named = [path for path, module in own.items() if module.origin == "expand"]
    else:
        named = []
        for text in [layers] if layers == "" else patterns_of(layers):  # "" is the path of the network itself
            pattern = text.removeprefix("!")
            found = [pattern] if pattern in sequential else fnmatch.filter(own, pattern)
            if not found:
                known = [path or "the network itself (its path is empty)" for path in list(sequential)[:5]]
                raise EditError(
                    f"{text!r} matches nothing that can be contracted in {type(model).__name__}; available: "
                    f"{', '.join(known) or 'no layers in a row'}"
                )
            named = [path for path in named if path not in found] if text.startswith("!") else [*named, *found]
    unique = list(dict.fromkeys(named))
    return [path for path in unique if not any(path.startswith(f"{outer}.") for outer in unique)]


def _contracted(model: nn.Module, path: str) -> list[ContractLayers]:
    container = _sequential(model, path)
    runs, between = _runs(container, path)
    if isinstance(container, Factors) and between:
        raise EditError(
            f"{between}: a {type(model.get_submodule(between)).__name__} is between the factors of {path}, so they "
            "cannot be one layer" + ("; `prunus.surgery.linearize` removes it" if container.origin == "expand" else "")
        )
    if not runs:
        why = f": {between} is between them ({type(model.get_submodule(between)).__name__})" if between else ""
        raise EditError(f"{path or type(model).__name__}: no two linear layers follow each other there{why}")
    edits = []
    for run in runs:
        for place, module in run:
            if not is_pad(module) and (reason := refusal(model, place, module)):
                raise EditError(f"{place}: {reason}")
        _product(run, shapes)
        found = tuple(layer_at(place, module) for place, module in run if not is_pad(module))
        edits.append(ContractLayers(path=path, factors=found))
    return edits


def _runs(container: nn.Module, path: str) -> tuple[list[list[tuple[str, nn.Module]]], str | None]:
    """Return the longest runs of two or more linear layers, and the path of the first other module after one."""
    runs: list[list[tuple[str, nn.Module]]] = [[]]
    between = None
    for place, module in chain(container, path):
        if kind_of(module) is not None or (is_pad(module) and isinstance(container, Factors)):
            runs[-1].append((place, module))
        else:
            between = between or (place if runs[-1] else None)
            runs.append([])
    return [run for run in runs if len([module for _, module in run if not is_pad(module)]) > 1], between


def _run(container: nn.Module, path: str, first: nn.Module, last: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules from `first` to `last`; all modules if an edit made the container."""
    members = list(chain(container, path))
    if isinstance(container, Factors):
        return members
    modules = [module for _, module in members]
    if first not in modules or last not in modules:
        return []
    return members[modules.index(first) : modules.index(last) + 1]


def product(container: Factors, numbers: Callable[[Tensor, str], Tensor]) -> Filter:
    """Return the one filter that the layers of `container` compute, with their tensors read by `numbers`.

    Raises:
        EditError: they cannot be one layer.
    """
    return _product(list(chain(container, "")), numbers)


def _product(members: list[tuple[str, nn.Module]], numbers: Callable[[Tensor, str], Tensor] = values) -> Filter:
    """Return the product of consecutive layers; a padding module becomes the padding of the next layer."""
    parts, places, pending = list[Filter](), list[str](), None
    for place, module in members:
        if is_pad(module):
            pending = padding_of(module)
            continue
        part = read(module, place, numbers)
        if pending is not None:
            part, pending = dataclasses.replace(part, padding=pending[0], mode=pending[1]), None
        parts.append(part)
        places.append(place)
    return compose_all(parts, places)


def _sequential(model: nn.Module, path: str) -> nn.Sequential:
    module = module_at(model, path)
    plain = isinstance(module, Factors) or type(module).forward is nn.Sequential.forward
    if not isinstance(module, nn.Sequential) or not plain:
        raise EditError(
            f"{path} is a {type(module).__name__}, not an nn.Sequential: the order of its layers is not known"
        )
    return module


def _check_used_once(model: nn.Module, members: list[tuple[str, nn.Module]]) -> None:
    for place, module in members:
        if others := [path for path in paths_of(model, module) if path != place]:
            raise EditError(f"{place} is also used as {', '.join(others)}: it cannot be contracted")

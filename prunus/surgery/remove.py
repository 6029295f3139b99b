"""RemoveChannels: cut channels out of every tensor that holds them.

Each cut removes the indices `remove` of dimension `dim`. Removing all members of a channel group whose producers are
zero does not change the function; `prunus.select` writes such edits.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from prunus.errors import EditError
from prunus.modules.cutting import cut, narrowed
from prunus.modules.kinds import TransposedConv
from prunus.modules.modes import evaluating
from prunus.modules.numbers import set_number_
from prunus.modules.tensors import named_tensors
from prunus.surgery.edit import Edit
from prunus.surgery.set_attribute import Cut, SetAttribute


@dataclasses.dataclass(frozen=True, kw_only=True)
class RemoveChannels(Edit):
    """Remove channels from all tensors that hold them."""

    exact: ClassVar[bool] = True
    cuts: tuple[Cut, ...]
    attributes: tuple[SetAttribute, ...] = ()

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a narrower copy of `model`."""
        self._check(model)
        result = narrowed(model, self._keep())
        for one in self.attributes:
            set_number_(result, one.path, one.name, one.item, one.after)
        with evaluating(result):
            _check_modules(result, {cut.path.rpartition(".")[0] for cut in self.cuts})
        return result

    def summary(self) -> str:
        """Describe the edit in one line."""
        layers = {c.path.rpartition(".")[0]: c for c in self.cuts if c.dim == 0}
        channels = sum(len(c.remove) for c in layers.values())
        text = f"remove {channels} output channels of {len(layers)} layers ({len(self.cuts)} cuts)"
        return text + (f", set {', '.join(map(str, self.attributes))}" if self.attributes else "")

    def carry(self, path: str, tensor: Tensor) -> Tensor | None:
        """Return `tensor` cut like the parameter at `path`."""
        dims = {one.dim: one.keep() for one in self.cuts if one.path == path}
        return cut(tensor, dims) if dims else tensor

    def _keep(self) -> Mapping[str, Mapping[int, Tensor]]:
        keep: dict[str, dict[int, Tensor]] = {}
        for one in self.cuts:
            keep.setdefault(one.path, {})[one.dim] = one.keep()
        return keep

    def _check(self, model: nn.Module) -> None:
        if not self.cuts:
            raise EditError("there is no cut, so nothing would be removed")
        tensors = named_tensors(model)
        seen = set()
        for one in self.cuts:
            place = f"{one.path}, dimension {one.dim}"
            tensor = tensors.get(one.path)
            if tensor is None:
                raise EditError(f"{one.path}: {type(model).__name__} has no such parameter or buffer")
            if not 0 <= one.dim < tensor.dim():
                raise EditError(f"{place}: the tensor has {tensor.dim()} dimensions")
            if tensor.shape[one.dim] != one.size:
                raise EditError(
                    f"{place} has size {tensor.shape[one.dim]}, the plan is for size {one.size}: "
                    "it was made for another network, or was applied already"
                )
            if (one.path, one.dim) in seen:
                raise EditError(f"{place} is cut twice")
            seen.add((one.path, one.dim))
            if list(one.remove) != sorted(set(one.remove)):
                raise EditError(f"{place}: the indices must ascend, none twice")
            if not one.remove or one.remove[0] < 0 or one.remove[-1] >= one.size:
                raise EditError(f"{place}: indices must lie in 0..{one.size - 1}, at least one")
            if len(one.remove) >= one.size:
                raise EditError(f"{place}: all {one.size} channels would be removed")
        if len({(one.path, one.name, one.item) for one in self.attributes}) < len(self.attributes):
            raise EditError("an attribute is set twice")
        for attribute in self.attributes:
            attribute.check(model, self.cuts)


def _check_modules(model: nn.Module, paths: set[str]) -> None:
    """Check that the tensors of each layer still agree in size."""
    for path in sorted(paths):
        module = model.get_submodule(path)
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
            continue
        units = weight.shape[1] * module.groups if isinstance(module, TransposedConv) else weight.shape[0]
        if bias.dim() == 1 and bias.shape[0] != units:
            raise EditError(
                f"{path}: the weight makes {units} channels, the bias has {bias.shape[0]}: a cut is missing"
            )
        for name in ("running_mean", "running_var"):
            statistic = getattr(module, name, None)
            if isinstance(statistic, Tensor) and statistic.shape[0] != units:
                raise EditError(
                    f"{path}.{name} has {statistic.shape[0]} channels, the weight {units}: a cut is missing"
                )

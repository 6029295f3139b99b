"""`Factors`: consecutive layers that replace one, and functions that build them like it."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.modules.kinds import LinearLayer
from prunus.modules.tensors import channels_last, memory_format_of, parameter_like
from prunus.surgery.filters import PADS, Filter, stored, write

_SIZES = {
    "in_channels": 0,
    "in_features": 0,
    "groups": 0,
    "out_channels": -1,
    "out_features": -1,
}  # index of the factor that has the size: the first or the last


@final
class Factors(nn.Sequential):
    """Consecutive layers that replace one: `factor0`, `factor1`, ..., public torch modules.

    Code that reads the replaced layer's `in_channels`, `kernel_size`, `stride`, ... goes on working: attributes that do
    not depend on the width are kept, and sizes are read from the factors.

    Attributes:
        shortcut: while set, computes the same function in another way (`prunus.train.contracted`).
    """

    shortcut: Callable[[Tensor], Tensor] | None = None

    def __init__(self, parts: Mapping[str, nn.Module], origin: str) -> None:
        super().__init__(OrderedDict(parts))
        self._origin = origin

    @property
    def origin(self) -> str:
        """The kind of edit that made it: "expand", "decompose" or "factorize"."""
        return self._origin

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Run the layers one after the other, or the shortcut."""
        if self.shortcut is not None:
            return self.shortcut(input)
        return super().forward(input)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def layers(self) -> list[Any]:
        """The convolutions or linear layers in order, including the factors of factors."""
        return [module for module in self.modules() if isinstance(module, LinearLayer)]

    def __getattr__(self, name: str) -> Any:
        """Return a size of the replaced layer from the first or the last factor."""
        if name in _SIZES:
            return getattr(self.layers[_SIZES[name]], name)
        return super().__getattr__(name)

    def __getitem__(self, index: Any) -> Any:
        """Return a factor; for a slice, a plain `nn.Sequential`."""
        parts = list(self._modules.items())[index]
        return nn.Sequential(OrderedDict(parts)) if isinstance(index, slice) else parts[1]


def factors_for(old: Any, parts: Sequence[Filter], origin: str, *, nonlinear: bool = False) -> Factors:
    """Return `parts` as layers that replace `old`: its dtype, device, memory format, mode and parameters' attributes.

    Args:
        old: a `LinearLayer`.
        nonlinear: whether to put ReLUs between the parts.
    """
    modules: dict[str, nn.Module] = {}
    for number, part in enumerate(parts):
        *pads, layer = built(part, old)
        modules |= {f"pad{number}": pad for pad in pads} | {f"factor{number}": layer}
        if nonlinear and number + 1 < len(parts):
            modules[f"relu{number}"] = nn.ReLU()
    return Factors(modules, origin).train(old.training)


def built(part: Filter, like: Any) -> list[nn.Module]:
    """Return `part` as torch modules (a padding first if it needs one), with tensors placed like those of `like`."""
    modules = write(part)
    layer: Any = modules[-1]
    layer.weight = placed(stored(part), like.weight)
    if part.bias is not None:
        layer.bias = placed(part.bias, like.weight if like.bias is None else like.bias)
    return [module.train(like.training) for module in modules]


def placed(values: Tensor, like: nn.Parameter) -> nn.Parameter:
    """Return a copy of `values` as a parameter with the dtype, device, memory format and attributes of `like`."""
    # A copy even where nothing changes: the network that an edit returns shares no memory with its original.
    tensor = torch.empty(values.shape, dtype=like.dtype, device=like.device)
    if memory_format_of(like) is not torch.contiguous_format:
        tensor = channels_last(tensor)
    return parameter_like(tensor.copy_(values), like)


def chain(container: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) of the modules that run inside an `nn.Sequential`, in order, without identities."""
    for name, module in container._modules.items():  # a module registered twice runs twice
        place = f"{path}.{name}" if path else name
        if isinstance(module, Factors):
            yield from chain(module, place)
        elif module is not None and not isinstance(module, nn.Identity):
            yield place, module


def is_pad(module: nn.Module) -> bool:
    """Return whether a module only pads."""
    return isinstance(module, PADS)

"""`Factors`: the layers that stand in the place of one, and putting them there."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from prunus.surgery.filters import LINEAR_LAYERS, PADS, Filter, stored, write


@final
class Factors(nn.Sequential):
    """Layers in a row that stand in the place of one: `factor0`, `factor1`, ..., public torch modules.

    Code that reads the replaced layer's `in_channels`, `kernel_size`, `stride`, ... goes on working: what does not
    change with the width is kept as it was, what does is asked of the factors.

    Attributes:
        origin: the kind of edit that made it: "expand", "decompose" or "factorize".
        shortcut: computes the same in another way while it is set (`prunus.train.contracted`).
    """

    def __init__(self, parts: Mapping[str, nn.Module], origin: str) -> None:
        super().__init__(OrderedDict(parts))
        self.origin = origin
        self.shortcut: Callable[[Tensor], Tensor] | None = None

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return what the layers make of the input, one after the other, or by the shortcut."""
        if self.shortcut is not None:
            return self.shortcut(input)
        return super().forward(input)  # type: ignore[no-any-return, no-untyped-call]

    @property
    def layers(self) -> list[Any]:
        """Return the convolutions or linear layers, first to last; factors of factors opened."""
        return [module for module in self.modules() if isinstance(module, LINEAR_LAYERS)]

    @property
    def in_channels(self) -> int:
        """Return the channels that come in."""
        return int(self.layers[0].in_channels)

    @property
    def out_channels(self) -> int:
        """Return the channels that go out."""
        return int(self.layers[-1].out_channels)

    @property
    def in_features(self) -> int:
        """Return the features that come in."""
        return int(self.layers[0].in_features)

    @property
    def out_features(self) -> int:
        """Return the features that go out."""
        return int(self.layers[-1].out_features)

    @property
    def groups(self) -> int:
        """Return the number of groups."""
        return int(self.layers[0].groups)

    def __getitem__(self, index: Any) -> Any:
        """Return a factor; of a slice, a plain `nn.Sequential`."""
        parts = list(self._modules.items())[index]
        return nn.Sequential(OrderedDict(parts)) if isinstance(index, slice) else parts[1]


def factors(old: Any, parts: Sequence[Filter], origin: str, *, nonlinear: bool = False) -> Factors:
    """Return `parts` as layers that take the place of `old`: its dtype, device, memory format, modes and marks.

    Args:
        old: a layer of `LINEAR_LAYERS`.
        nonlinear: whether a ReLU stands between two parts.
    """
    modules: dict[str, nn.Module] = {}
    for number, part in enumerate(parts):
        *pads, layer = built(part, old)
        modules |= {f"pad{number}": pad for pad in pads} | {f"factor{number}": layer}
        if nonlinear and number + 1 < len(parts):
            modules[f"relu{number}"] = nn.ReLU()
    return Factors(modules, origin).train(old.training)


def built(part: Filter, like: Any) -> list[nn.Module]:
    """Return `part` as torch modules (a padding first where it needs one), its tensors placed like those of `like`."""
    modules = write(part)
    layer: Any = modules[-1]
    layer.weight = _placed(stored(part), like.weight)
    if part.bias is not None:
        layer.bias = _placed(part.bias, like.weight if like.bias is None else like.bias)
    return [module.train(like.training) for module in modules]


def _placed(values: Tensor, like: nn.Parameter) -> nn.Parameter:
    # A copy even where nothing changes: what an edit returns shares no memory with its original.
    tensor = torch.empty(values.shape, dtype=like.dtype, device=like.device)
    for rank, memory_format in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() == like.dim() == rank and not like.is_contiguous():
            tensor = tensor.to(memory_format=memory_format)
    result = nn.Parameter(tensor.copy_(values), requires_grad=like.requires_grad)
    vars(result).update(copy.deepcopy(vars(like)))  # what people mark parameters with
    return result


def replaced(model: nn.Module, new: Mapping[str, nn.Module]) -> nn.Module:
    """Return a copy of `model` with other modules at the given paths, wherever `model` refers to the old ones.

    What takes a layer's place gets its hooks, and the attributes that it has not itself; an `nn.Identity` gets none.
    """
    old = {path: model.get_submodule(path) for path in new}
    memo: dict[int, Any] = {id(old[path]): module for path, module in new.items()}
    result = copy.deepcopy(model, memo)
    for path, module in new.items():
        if not isinstance(module, nn.Identity):
            for name in _handed_on(old[path], module):
                setattr(module, name, copy.deepcopy(vars(old[path])[name], memo))
    return result


def is_hooked(module: nn.Module) -> bool:
    """Whether hooks on a module would see that it is passed by."""
    return any(vars(module)[name] for name in _hooks(module))


def _hooks(module: nn.Module) -> list[str]:
    return [name for name in vars(module) if name.startswith("_") and ("forward" in name or "backward" in name)]


def _handed_on(old: nn.Module, new: nn.Module) -> list[str]:
    own = [name for name in vars(old) if name[0] != "_" and name not in ("origin", "shortcut")]
    return _hooks(old) + [name for name in own if not hasattr(new, name)]


def chain(container: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield (path, module) of what runs inside a `nn.Sequential`, first to last; what does nothing is left out."""
    for name, module in container._modules.items():  # a module that stands there twice runs twice
        place = f"{path}.{name}" if path else name
        if isinstance(module, Factors):
            yield from chain(module, place)
        elif module is not None and not isinstance(module, nn.Identity):
            yield place, module


def is_pad(module: nn.Module) -> bool:
    """Whether a module pads and does nothing else."""
    return isinstance(module, PADS)

"""FuseBatchNorm: in evaluation mode a BatchNorm behind a convolution is part of the convolution.

With s = gamma / sqrt(var + eps): W' = s W for each output channel, b' = s (b - mean) + beta. Exact up to rounding,
in evaluation mode; the fused network is for deployment, not for training on.
"""

import collections
import copy
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from prunus.errors import EditError
from prunus.graph.program import Value
from prunus.graph.read import read
from prunus.graph.trace import Inputs, arguments
from prunus.surgery.edit import Edit, Plan
from prunus.surgery.given import checked

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseBatchNorm(Edit):
    """Fold the BatchNorm at `norm` into the convolution at `conv`; an Identity takes its place."""

    exact: ClassVar[bool] = True
    conv: str
    norm: str

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` with the two fused."""
        result = copy.deepcopy(model)
        conv, norm = _module(result, self.conv, _CONV), _module(result, self.norm, _NORM)
        if norm.running_mean is None or norm.running_var is None:
            raise EditError(f"{self.norm} keeps no running statistics, so it is no fixed function: it cannot be fused")
        units = conv.out_channels
        if norm.num_features != units:
            raise EditError(f"{self.conv} makes {units} channels, {self.norm} normalises {norm.num_features}")
        with torch.no_grad():
            _fold(conv, norm)
        result.set_submodule(self.norm, nn.Identity().train(norm.training))
        return result

    def summary(self) -> str:
        """Return one line for a reader."""
        return f"fold {self.norm} into {self.conv}"

    def carry(self, path: str, tensor: Tensor) -> Tensor | None:
        """Return `tensor`, or None for a parameter of the two modules: they are made anew."""
        return None if path.rpartition(".")[0] in (self.conv, self.norm) else tensor


def _module(model: nn.Module, path: str, kinds: tuple[type[nn.Module], ...]) -> Any:
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise EditError(f"{path}: {type(model).__name__} has no such module") from error
    if not _is_plain(module, kinds):
        raise EditError(
            f"{path} is a {type(module).__name__}, not one of {', '.join(k.__name__ for k in kinds)} as torch runs them"
        )
    return module


def _is_plain(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Whether torch's own code runs: a subclass may standardise its weight, or activate behind the norm."""
    own = isinstance(module, kinds) and not is_parametrized(module)
    return own and any(type(module).forward is kind.forward for kind in kinds)


def _fold(conv: Any, norm: Any) -> None:
    kept = conv.weight.dtype
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = shift * scale + (0 if norm.bias is None else norm.bias.double())
    weight = conv.weight.double()
    if isinstance(conv, _TRANSPOSED):  # [in, out / groups, *kernel]
        grouped = weight.unflatten(0, (conv.groups, -1)) * scale.reshape(conv.groups, 1, -1, *[1] * (weight.dim() - 2))
        weight = grouped.flatten(0, 1)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    source = conv.bias if conv.bias is not None else norm.bias
    trainable = conv.weight.requires_grad if source is None else source.requires_grad
    conv.weight = nn.Parameter(weight.to(kept), requires_grad=conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(kept), requires_grad=trainable)


@checked
def fuse(model: nn.Module, inputs: Inputs, kwargs: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan that folds every BatchNorm of `model` that reads the output of one convolution alone.

    With s = gamma / sqrt(var + eps): W' = s W for each output channel, b' = s (b - mean) + beta. Exact up to rounding,
    in evaluation mode; in training mode a BatchNorm takes the batch's own statistics.

    The convolution's output must have no other reader, and neither module may be called twice.

    Args:
        model: any network; it is not changed.
        inputs: the example's positional arguments; a tensor stands for a tuple of one.
        kwargs: the example's keyword arguments.

    Raises:
        TraceError: the model cannot be read.
    """
    operations = read(model, arguments(inputs), kwargs).operations
    kernels = [op for op in operations if "conv" in op.name or op.name == "aten::batch_norm"]
    calls = collections.Counter(op.module for op in kernels)
    edits = []
    for operation in operations:
        source = operation.arguments.get("input")
        if operation.name != "aten::batch_norm" or not isinstance(source, Value) or source.maker is None:
            continue
        conv, norm = source.maker.module, operation.module
        fits = _is_plain(model.get_submodule(conv), _CONV) and _is_plain(model.get_submodule(norm), _NORM)
        once = len(source.readers) == 1 and calls[conv] == calls[norm] == 1
        if fits and once and model.get_submodule(norm).running_mean is not None:
            edits.append(FuseBatchNorm(conv=conv, norm=norm))
    return Plan(tuple(edits))

"""FuseBatchNorm: fold a BatchNorm behind a convolution into the convolution.

With s = gamma / sqrt(var + eps): W' = s W per output channel, b' = s (b - mean) + beta. Exact up to rounding in
evaluation mode; the fused network is for deployment, not for further training.
"""

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from prunus.errors import EditError
from prunus.modules.copying import replaced
from prunus.modules.given import Inputs, arguments
from prunus.modules.kinds import BatchNorm, Conv, TransposedConv, is_plain, members
from prunus.modules.paths import module_at
from prunus.program import Value
from prunus.program import read as read_operations
from prunus.surgery.argument_types import checked
from prunus.surgery.edit import Edit
from prunus.surgery.factors import placed
from prunus.surgery.filters import read, stored
from prunus.surgery.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseBatchNorm(Edit):
    """Fold the BatchNorm at `norm` into the convolution at `conv`; an Identity replaces the norm."""

    exact: ClassVar[bool] = True
    conv: str
    norm: str

    @property
    def made_anew(self) -> tuple[str, ...]:
        """The paths of the two modules."""
        return self.conv, self.norm

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a copy of `model` with the two fused."""
        conv, norm = _module(model, self.conv, Conv | TransposedConv), _module(model, self.norm, BatchNorm)
        if norm.running_mean is None or norm.running_var is None:
            raise EditError(
                f"{self.norm} keeps no running statistics, so it is not a fixed function: it cannot be fused"
            )
        if norm.num_features != conv.out_channels:
            raise EditError(
                f"{self.conv} makes {conv.out_channels} channels, {self.norm} normalises {norm.num_features}"
            )
        result = replaced(model, {self.norm: nn.Identity().train(norm.training)})
        with torch.no_grad():
            _fold_(result.get_submodule(self.conv), norm)
        return result

    def summary(self) -> str:
        """Describe the edit in one line."""
        return f"fold {self.norm} into {self.conv}"


def _module(model: nn.Module, path: str, kinds: Any) -> Any:
    module = module_at(model, path)
    if not is_plain(module, kinds):
        names = ", ".join(kind.__name__ for kind in members(kinds))
        raise EditError(f"{path} is a {type(module).__name__}, not one of {names} as torch runs them")
    return module


def _fold_(conv: Any, norm: Any) -> None:
    """Set weight and bias of `conv`, a layer of the copy, to those of the fused layer."""
    part = read(conv, "", lambda tensor, place: tensor.double())
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double()
    if part.bias is not None:
        shift = shift + part.bias
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    bias = shift * scale + (0 if norm.bias is None else norm.bias.double())
    weight = part.weight * scale.reshape(part.groups, -1, *[1] * (part.weight.dim() - 2))
    like = conv.weight if conv.bias is None else conv.bias
    conv.weight = placed(stored(dataclasses.replace(part, weight=weight)), conv.weight)
    conv.bias = placed(bias, like)


@checked
def fuse(model: nn.Module, inputs: Inputs, kwargs: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan that folds every BatchNorm of `model` that directly follows a convolution.

    Exact up to rounding in evaluation mode; in training mode a BatchNorm would use the batch's statistics. The
    convolution's output must have no other reader, and neither module may be called twice.

    Args:
        model: any network; it is not changed.
        inputs: the example's positional arguments; a tensor stands for a tuple of one.
        kwargs: the example's keyword arguments.

    Raises:
        TraceError: the model cannot be read.
    """
    operations = read_operations(model, arguments(inputs), kwargs).operations
    calls = collections.Counter(op.module for op in operations if "conv" in op.name or op.name == "aten::batch_norm")
    edits = []
    for operation in operations:
        source = operation.arguments.get("input")
        if operation.name != "aten::batch_norm" or not isinstance(source, Value) or source.maker is None:
            continue
        conv, norm = source.maker.module, operation.module
        norm_module = model.get_submodule(norm)
        plain = is_plain(model.get_submodule(conv), Conv | TransposedConv) and is_plain(norm_module, BatchNorm)
        if not plain or norm_module.running_mean is None:
            continue
        if len(source.readers) == 1 and calls[conv] == calls[norm] == 1:
            edits.append(FuseBatchNorm(conv=conv, norm=norm))
    return Plan(tuple(edits))

"""Units of a network: its convolutions and linear layers as a backend runs them, one by one, at any width.

A unit's milliseconds depend only on its shape and its channels, so networks with the same shapes share measurements.
BatchNorm after it is folded, and the backend fuses activations and additions; the model counts these with the rest.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from prunus.graph import ChannelGroups
from prunus.program import Operation, Value, read

OPSET, IR_VERSION = 18, 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitShape:
    """The properties of a unit that do not depend on its widths.

    Attributes:
        kind: "Conv", "ConvTranspose" or "MatMul".
        leading: for a convolution N, height, width, ... of its input; for a linear layer all sizes before the features.
        kernel: kernel size; a linear layer has none, and none of the following.
        groups: number of groups; 0 means depthwise, as many as channels.
    """

    kind: str
    leading: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    @property
    def key(self) -> str:
        """Return the name of the unit in a table."""
        fields = [
            f"{name}={'x'.join(map(str, v))}"
            for name, v in dataclasses.asdict(self).items()
            if isinstance(v, tuple) and v
        ]
        return " ".join([self.kind, *fields, f"groups={self.groups}"])

    @property
    def num_axes(self) -> int:
        """Return the number of its sizes: two (outputs and inputs per group), or one (channels) if depthwise."""
        return 2 if self.groups else 1

    def possible(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return `sizes` with the outputs rounded up to a multiple of the number of groups."""
        return sizes if self.groups < 2 else (-(-sizes[0] // self.groups) * self.groups, *sizes[1:])

    def input_shape(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the input at `sizes`."""
        if self.kind == "MatMul":
            return (*self.leading, sizes[1])
        channels = sizes[1] * self.groups if self.groups else sizes[0]
        return (self.leading[0], channels, *self.leading[1:])

    def num_weights(self, sizes: Sequence[int]) -> int:
        """Return the number of its weights at `sizes`."""
        return math.prod(self._weight_shape(sizes))

    def write(self, sizes: Sequence[int], path: Path, shared: str | None = None) -> None:
        """Write the unit at `sizes` as an ONNX file with random weights, or with the first weights of the float32 file
        `shared` beside it."""
        if self.kind == "MatMul":
            node = helper.make_node("MatMul", ["input", "weight"], ["output"], name="unit")
        else:
            attributes: dict[str, Any] = {
                "kernel_shape": self.kernel,
                "strides": self.stride,
                "pads": (*self.padding, *self.padding),
                "dilations": self.dilation,
                "group": self.groups or sizes[0],
            }
            if self.kind == "ConvTranspose":
                attributes["output_padding"] = self.output_padding
            node = helper.make_node(self.kind, ["input", "weight"], ["output"], name="unit", **attributes)
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, self.input_shape(sizes))
        returned = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "unit", [given], [returned], [self._weights(sizes, shared)])
        opsets = [helper.make_opsetid("", OPSET)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), str(path))

    def module(self, sizes: Sequence[int]) -> nn.Module:
        """Return the unit at `sizes` as a module, for backends that read modules."""
        if self.kind == "MatMul":
            return nn.Linear(sizes[1], sizes[0], bias=False)
        dims, transposed = len(self.kernel), self.kind == "ConvTranspose"
        kinds: list[Any] = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]
        settings: dict[str, Any] = {"output_padding": self.output_padding} if transposed else {}
        settings |= {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "bias": False}
        plain: list[Any] = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
        kind = (kinds if transposed else plain)[dims - 1]
        made: nn.Module = kind(
            self.input_shape(sizes)[1], sizes[0], self.kernel, groups=self.groups or sizes[0], **settings
        )
        return made

    def _weights(self, sizes: Sequence[int], shared: str | None) -> TensorProto:
        shape = self._weight_shape(sizes)
        if shared is None:
            weight = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            return numpy_helper.from_array(weight, "weight")
        tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", shared), ("offset", "0"), ("length", str(4 * math.prod(shape)))):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def _weight_shape(self, sizes: Sequence[int]) -> tuple[int, ...]:
        if self.kind == "MatMul":
            return (sizes[1], sizes[0])
        if self.kind == "ConvTranspose":
            return (self.input_shape(sizes)[1], sizes[0] // (self.groups or sizes[0]), *self.kernel)
        return (sizes[0], sizes[1] if self.groups else 1, *self.kernel)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkUnit:
    """One call of a unit in a network.

    Attributes:
        name: dotted path of the module.
        shape: shape of the unit.
        sizes: the groups of its output channels and of its input channels, as in `Slot`.
        written: number of output values per channel.
    """

    name: str
    shape: UnitShape
    sizes: tuple[Tensor, ...]
    written: float

    @property
    def full(self) -> tuple[int, ...]:
        """Return its sizes in the network as traced."""
        return tuple(size.numel() for size in self.sizes)


def network_units(model: nn.Module, groups: ChannelGroups, inputs: tuple[Any, ...]) -> list[NetworkUnit]:
    """Return the units of `model`, in the order in which they run.

    Raises:
        TraceError: the network cannot be read.
    """
    slots = {(slot.path, slot.dim): slot.groups for slot in groups.slots}
    found = []
    for operation in read(model, inputs).operations:
        weight = operation.arguments.get("weight")
        shape = _shape(operation)
        if shape is None or not isinstance(weight, Value) or not weight.path:
            continue
        makes, reads = (1, 0) if shape.kind == "ConvTranspose" else (0, 1)
        sizes = [_channels(slots, weight, makes)]
        if shape.groups:
            sizes.append(_channels(slots, weight, reads))
        written = math.prod(operation.results[0].shape) / max(1, sizes[0].numel())
        name = weight.path.rpartition(".")[0]
        found.append(NetworkUnit(name=name, shape=shape, sizes=tuple(sizes), written=written))
    return found


def _channels(slots: dict[tuple[str, int], Tensor], weight: Value, dim: int) -> Tensor:
    return slots.get((weight.path, dim), torch.full((weight.shape[dim],), -1))


def _shape(operation: Operation) -> UnitShape | None:
    """Return the shape of a unit; None if the operation is no unit or of a kind that no unit covers."""
    source, weight = operation.arguments.get("input"), operation.arguments.get("weight")
    if not isinstance(source, Value) or not isinstance(weight, Value):
        return None
    if operation.name == "aten::linear":
        return UnitShape(kind="MatMul", leading=source.shape[:-1])
    kind = operation.name.removeprefix("aten::")
    dims = len(weight.shape) - 2
    if kind not in (f"conv{dims}d", f"conv_transpose{dims}d") or len(source.shape) != dims + 2:
        return None
    values = {name: operation.arguments.get(name) for name in ("stride", "padding", "dilation", "output_padding")}
    if isinstance(values["padding"], str):  # "same", "valid"
        reach = [
            (size - 1) * step
            for size, step in zip(weight.shape[2:], _per_dimension(values["dilation"], dims), strict=True)
        ]
        values["padding"] = [whole // 2 if values["padding"] == "same" else 0 for whole in reach]
    transposed, num = kind.startswith("conv_transpose"), int(str(operation.arguments["groups"]))
    channels = source.shape[1]
    if num > 1 and (transposed or (num == channels and weight.shape[0] != channels)):
        return None
    return UnitShape(
        kind="ConvTranspose" if transposed else "Conv",
        leading=(source.shape[0], *source.shape[2:]),
        kernel=tuple(weight.shape[2:]),
        groups=0 if num == channels > 1 else num,
        **{name: _per_dimension(value, dims) for name, value in values.items() if value is not None},
    )


def _per_dimension(value: Any, dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return values * dims if len(values) == 1 else values

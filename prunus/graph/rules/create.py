"""Operators that make tensors from nothing, or from another tensor's shape."""

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule

FILLED = {"aten::zeros": 0.0, "aten::new_zeros": 0.0, "aten::ones": 1.0, "aten::new_ones": 1.0}


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "bernoulli")
def like(call: Call) -> Label:
    """A tensor as wide as another: it holds the same channels, zero only where the operator writes zeros."""
    source = 0 if call.name == "aten::zeros_like" else call.number
    axes = {dim: Axis(axis.ids, torch.full_like(axis.source, source)) for dim, axis in call.input.axes.items()}
    return Label(call.shapes[0], axes)


@rule("zeros", "ones", "full", "empty", "empty_strided", "rand", "randn", "randint", "randperm", "arange", "eye")
@rule("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")
def filled(call: Call) -> Labels:
    """A tensor of a fixed size, random or too large to be computed: its one value is kept where it has one."""
    fill = FILLED.get(call.name, call.get("fill_value"))
    if fill is None:
        return call.plain()
    shape = call.shapes[0]
    return Label(shape, data=torch.tensor(fill).to(call.operation.results[0].dtype).expand(shape))


@rule("_assert_tensor_metadata", "_assert_async")
def nothing(call: Call) -> Labels:
    """Reads no channel's value."""
    return call.plain()

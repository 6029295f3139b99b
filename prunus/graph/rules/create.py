"""Operators that make tensors from nothing, or from another tensor's shape."""

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule

FILLED = {"zero": 0.0, "one": 1.0, "empty": 0.0}  # what stands in an empty tensor is not relied on


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "bernoulli", "zero")
@rule("zeros", "ones", "full", "empty", "empty_strided", "rand", "randn", "randint", "randperm", "arange", "eye")
@rule("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")
def filled(call: Call) -> Labels:
    """A tensor as wide as another holds the same channels, zero only where the operator writes zeros. One of a fixed
    size, random or too large to be computed, keeps its one value where it has one."""
    shape, name = call.shapes[0], call.name.rpartition(":")[2].removeprefix("new_")
    known = [value for word, value in FILLED.items() if name.startswith(word)]
    fill = known[0] if known else call.get("fill_value")
    like = call.input.axes if call.labels and "size" not in call.arguments else {}
    axes = {dim: Axis.of(axis.ids) if fill == 0 else call.changed(Axis.of(axis.ids)) for dim, axis in like.items()}
    if axes or fill is None:
        return Label(shape, axes)
    return Label(shape, data=torch.tensor(fill).to(call.operation.results[0].dtype).expand(shape))


@rule("_assert_tensor_metadata", "_assert_async")
def nothing(call: Call) -> Labels:
    """Reads no channel's value."""
    return call.results()

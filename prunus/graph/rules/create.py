"""Operators that make tensors from nothing, or from another tensor's shape."""

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule


@rule("zeros", "zeros_like", "new_zeros", "zero", "empty", "empty_like", "new_empty", "empty_strided")
@rule("new_empty_strided")
def zeros(call: Call) -> Label:
    """Zeros; the contents of an empty tensor are not relied on."""
    return _filled(call, 0.0)


@rule("ones", "ones_like", "new_ones")
def ones(call: Call) -> Label:
    """Ones."""
    return _filled(call, 1.0)


@rule("full", "full_like", "new_full", "rand_like", "randn_like", "bernoulli")
@rule("rand", "randn", "randint", "randperm", "arange", "eye")
def full(call: Call) -> Label:
    """A number, random numbers, or constants too large to be computed."""
    return _filled(call, call.get("fill_value"))


def _filled(call: Call, fill: float | None) -> Label:
    """Label a tensor filled with `fill`, None where the value is not known. Made like another tensor, it holds the same
    channels, zero only if `fill` is; with a size of its own, its value is kept."""
    like = call.input.axes if call.labels and "size" not in call.arguments else {}
    axes = {dim: Axis.of(axis.ids) if fill == 0 else call.changed(Axis.of(axis.ids)) for dim, axis in like.items()}
    if axes or fill is None:
        return Label(call.shapes[0], axes)
    value = torch.tensor(fill).to(call.operation.results[0].dtype)
    return Label(call.shapes[0], data=value.expand(call.shapes[0]))


@rule("_assert_tensor_metadata", "_assert_async")
def nothing(call: Call) -> Labels:
    """An operator that reads no channel's value."""
    return call.results()

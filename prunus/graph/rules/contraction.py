"""Matrix products with an added tensor, and embeddings."""

import torch

from prunus.graph.call import Call
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.einsum import product, sum_of_products
from prunus.graph.rules.table import rule, unknown


@rule("linear")
def linear(call: Call) -> Labels:
    """y = x w^T + b; weight [out, in]."""
    value, weight, bias = call["input"], call["weight"], call["bias"]
    if not weight.last:  # a vector as weight
        return unknown(call)
    result = sum_of_products(call, "...i,oi->...o", [value, weight], reads=True)
    return result if bias is None else plus(call, result, bias)


@rule("baddbmm", "addmm")
def addmm(call: Call) -> Labels:
    """A matrix product plus a tensor that broadcasts to it."""
    added, first, second = call.labels[:3]
    return plus(call, product(call, first, second), added)


def plus(call: Call, result: Label, added: Label) -> Label:
    """Add a tensor that broadcasts to a product; where both have channels, the sum is zero if both are."""
    offset = len(result.shape) - len(added.shape)
    axes = {}
    for dim, axis in result.axes.items():
        own = added.axes.get(dim - offset)
        if own is None and (dim < offset or added.shape[dim - offset] == 1):
            axes[dim] = call.changed(axis)
            continue
        call.join(axis, own)
        call.produce(own)
        axes[dim] = Axis(axis.ids, axis.source if own is None else torch.maximum(axis.source, own.source))
    for dim in added.axes.keys() - {dim - offset for dim in result.axes}:
        call.freeze(added.axes[dim], "meets data of a fixed size")
    return Label(result.shape, axes)


@rule("embedding")
def embedding(call: Call) -> Label:
    """Rows of a table [entries, size], looked up by indices: the entries are fixed, the size is a channel dimension.

    The output keeps the channels of the indices, but is not zero where an index is.
    """
    table, numbers = call["weight"], call["indices"]
    call.freeze(table.axes.get(0), "entries of a table")
    call.produce(table.axes.get(1))
    axes = {dim: call.changed(axis) for dim, axis in numbers.axes.items()}
    return Label(call.shapes[0], axes | ({len(numbers.shape): table.axes[1]} if 1 in table.axes else {}))

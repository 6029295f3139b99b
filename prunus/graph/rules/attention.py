"""Scaled dot-product attention."""

from prunus.graph.call import Call
from prunus.graph.labels import Label
from prunus.graph.rules.table import rule


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Label:
    """softmax(q k^T / sqrt(d)) v; q [..., n, d], k [..., m, d], v [..., m, e].

    Channels of q and k are contracted with each other; without a written-down scale, the default 1 / sqrt(d)
    changes when they go. Channels of v come out as they are.
    """
    query, key, value = call.args[:3]
    last = len(query.shape) - 1
    left, right = query.axes.get(last), key.axes.get(last)
    call.contract(left, right)
    if left is not None and call.kwargs.get("scale") is None:
        call.approximate(left, "the default scale 1 / sqrt(size of a head) changes")
    for label in (query, key, value):
        for dim, axis in label.axes.items():
            if dim != last:
                call.freeze(axis, "channels along the heads or the tokens of attention")
    shape = call.shapes[0]
    batch = 1
    for size in shape[:-1]:
        batch *= size
    call.cost(batch, key.shape[-2], left or query.shape[-1])
    call.cost(batch, key.shape[-2], value.axes.get(last, value.shape[-1]))
    return Label(shape, {last: value.axes[last]} if last in value.axes else {})

"""Scaled dot-product attention."""

from prunus.graph.call import Call
from prunus.graph.labels import Label
from prunus.graph.rules.table import rule


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Label:
    """softmax(q k^T / sqrt(d)) v; q [..., n, d], k [..., m, d], v [..., m, e].

    Channels of q and k are contracted with each other; without a written-down scale, the default 1 / sqrt(d)
    changes when they go. Channels of v come out as they are. Along the leading dimensions, the heads, each is
    treated by itself: the output is zero where v is.
    """
    query, key, value = call.args[:3]
    last = len(query.shape) - 1
    left, right = query.axes.get(last), key.axes.get(last)
    call.contract(left, right)
    call.attend(left, right, value.axes.get(last))
    if left is not None and call.kwargs.get("scale") is None:
        call.approximate(left, "the default scale 1 / sqrt(size of a head) changes")
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    heads = {dim: axis for dim, axis in value.axes.items() if alike and dim < last - 1}
    for label in (query, key, value):
        for dim in range(last):
            if dim in heads:
                call.join(heads[dim], label.axes.get(dim))
            elif dim in label.axes:
                call.freeze(label.axes[dim], "channels along the tokens of attention, or heads that are shared")
    mask = call.arg(3, "attn_mask")
    for dim, axis in mask.axes.items() if mask is not None else ():
        if dim >= len(mask.shape) - 2:
            call.freeze(axis, "channels along the tokens of attention")
    for dim in heads if mask is not None else ():
        behind = dim - last - 1
        if len(mask.shape) >= -behind and mask.shape[behind] > 1:
            call.join(heads[dim], mask.axes.get(len(mask.shape) + behind))
    shape = call.shapes[0]
    batch = [heads.get(dim, size) for dim, size in enumerate(shape[:-1])]
    call.cost(*batch, key.shape[-2], left or query.shape[-1])
    call.cost(*batch, key.shape[-2], value.axes.get(last, value.shape[-1]))
    kept = {dim: axis for dim, axis in value.axes.items() if dim in heads or dim == last}
    return Label(shape, kept)

"""Scaled dot-product attention."""

from prunus.graph.call import Call
from prunus.graph.labels import Label
from prunus.graph.rules.table import rule


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Label:
    """softmax(q k^T / sqrt(d)) v; q [..., n, d], k [..., m, d], v [..., m, e].

    Channels of q and k are contracted with each other; without a scale of the code's own, the default 1 / sqrt(d)
    changes when they are removed. Channels of v come out as they are. Along the leading dimensions, the heads, each is
    treated by itself: the output is zero where v is.
    """
    query, key, value, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    last = query.last
    left, right = query.axes.get(last), key.axes.get(last)
    call.contract(left, right)
    call.attend(left, right, value.axes.get(last))
    if call["scale"] is None:
        call.approximate(left, "the default scale 1 / sqrt(size of a head) changes")
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    heads = value.before(2) if alike else {}
    for label in (query, key, value):
        for dim in range(last):
            if dim in heads:
                call.join(heads[dim], label.axes.get(dim))
            else:
                call.freeze(label.axes.get(dim), "channels along the tokens of attention, or heads that are shared")
    if mask is not None:
        for dim in (mask.last - 1, mask.last):
            call.freeze(mask.axes.get(dim), "channels along the tokens of attention")
        for dim in heads:
            behind = dim - last - 1
            if len(mask.shape) >= -behind and mask.shape[behind] > 1:
                call.join(heads[dim], mask.behind(behind))
    shape = call.shapes[0]
    batch = [heads.get(dim, size) for dim, size in enumerate(shape[:-1])]
    call.cost(*batch, key.shape[-2], left or query.shape[-1])
    call.cost(*batch, key.shape[-2], value.axes.get(last, value.shape[-1]))
    return Label(shape, {dim: axis for dim, axis in value.axes.items() if dim in heads or dim == last})

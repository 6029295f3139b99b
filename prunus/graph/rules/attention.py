"""Scaled dot-product attention."""

from prunus.graph.call import Call
from prunus.graph.labels import Label
from prunus.graph.rules.einsum import sum_of_products
from prunus.graph.rules.table import rule


@rule("scaled_dot_product_attention")
def attention(call: Call) -> Label:
    """softmax(q k^T / sqrt(d)) v; q [..., n, d], k [..., m, d], v [..., m, e].

    Channels of q and k are contracted with each other; where the code passes no scale, the default 1 / sqrt(d) changes
    when they are removed. Channels of v are those of the output. Indices of the leading dimensions (the heads) are
    treated independently: the output is zero where v is.
    """
    query, key, value, mask = (call[name] for name in ("query", "key", "value", "attn_mask"))
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    for label in (query, key, value, mask) if mask is not None else (query, key, value):
        for dim, axis in label.axes.items():
            if dim == label.last - 1 or (dim == label.last if label is mask else dim < label.last and not alike):
                call.freeze(axis, "channels along the tokens of attention, or heads that are shared")
    if call["scale"] is None:
        call.approximate(query.behind(-1), "the default scale 1 / sqrt(size of a head) changes")
    scores = sum_of_products(call, "...nd,...md->...nm", [query, key], reads=True)
    heads = scores.before(2) if alike else {}
    for behind, axis in ((dim - len(query.shape), axis) for dim, axis in heads.items()):
        if mask is not None and len(mask.shape) >= -behind and mask.shape[behind] > 1:
            call.join(axis, mask.behind(behind))
    weights = Label(scores.shape, {dim: call.changed(axis) for dim, axis in heads.items()})  # softmax of zeros is not 0
    result = sum_of_products(call, "...nm,...me->...ne", [weights, value], reads=True)
    return Label(call.shapes[0], {dim: axis for dim, axis in result.axes.items() if dim in heads or dim == value.last})

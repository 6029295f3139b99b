"""Sums of products over named dimensions: Einstein sums, and the operators that can be written as one."""

import torch

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule


@rule("einsum")
def einsum(call: Call) -> Labels:
    """A sum of products over named dimensions: the dimensions that the output does not name are contracted."""
    return sum_of_products(call, call["equation"], call["tensors"])


@rule("matmul", "bmm", "mm", "mv")
def matmul(call: Call) -> Labels:
    """c[..., n, m] = sum over k of a[..., n, k] b[..., k, m]; leading dimensions broadcast; a vector has no n or m."""
    return product(call, *call.labels)


def product(call: Call, first: Label, second: Label) -> Label:
    """Label the matrix product of two tensors: the second reads the channels of the first."""
    n, m = ("n" if first.last else ""), ("m" if second.last else "")
    return sum_of_products(call, f"...{n}k,...k{m}->...{n}{m}", [first, second], reads=True)


@rule("cdist")
def distances(call: Call) -> Labels:
    """d[..., n, m] = ||a[..., n, :] - b[..., m, :]||: channels that are zero on both sides do not change it."""
    _must_be_zero(call, *(label.behind(-1) for label in call.labels))
    axes = sum_of_products(call, "...nk,...mk->...nm", call.labels).axes
    return Label(call.shapes[0], {dim: call.changed(axis) for dim, axis in axes.items()})


@rule("cosine_similarity")
def cosine_similarity(call: Call) -> Labels:
    """s = x . y / (||x|| ||y||) along a dimension: channels that are zero on both sides do not change it."""
    rank = max(len(label.shape) for label in call.labels)
    dim = call["dim"] % rank - rank
    _must_be_zero(call, *(label.behind(dim) for label in call.labels))
    names = "".join(chr(ord("a") + each) for each in range(rank))
    terms = ",".join(names[rank - len(label.shape) :] for label in call.labels)
    axes = sum_of_products(call, f"{terms}->{names.replace(names[dim], '')}", call.labels).axes
    return Label(call.shapes[0], {at: call.changed(axis) for at, axis in axes.items()})


def _must_be_zero(call: Call, *axes: Axis | None) -> None:
    """Declare channels that an operator measures on each side by themselves: on neither are they read by a weight."""
    for axis in axes:
        call.produce(axis)
        if axis is not None:
            call.blame(axis.ids, axis.source)


@rule("dot", "vdot")
def dot(call: Call) -> Labels:
    """s = sum over i of a[i] b[i]."""
    return sum_of_products(call, "i,i->", call.labels)


@rule("tensordot")
def tensordot(call: Call) -> Labels:
    """A sum of products over pairs of dimensions."""
    first = [chr(ord("a") + dim) for dim in range(len(call["input"].shape))]
    second = [chr(ord("A") + dim) for dim in range(len(call["other"].shape))]
    for left, right in zip(call["dims_self"], call["dims_other"], strict=True):
        second[right] = first[left]
    output = [name for name in (*first, *second) if (name in first) != (name in second)]
    return sum_of_products(call, f"{''.join(first)},{''.join(second)}->{''.join(output)}", call.labels[:2])


def sum_of_products(call: Call, equation: str, operands: list[Label], *, reads: bool = False) -> Label:
    """Label a sum of products given by an einsum equation. A product is zero where one of its factors is.

    Args:
        call: the operator.
        equation: names the dimensions of the operands and of the output; "..." stands for those that broadcast.
        operands: the factors.
        reads: whether the factors after the first always read its channels, as weights do. By default they do only if
            the first factor is zero with its channels; otherwise they must be zero themselves.
    """
    terms, output = _names(equation, [len(label.shape) for label in operands])
    if any(len(set(term)) < len(term) for term in terms):  # a diagonal
        call.freeze_all(f"{call.name} takes a diagonal")
        return Label(call.shapes[0])
    axes, sizes = dict[str, Axis | None](), dict[str, int]()
    for name in dict.fromkeys("".join(terms)):
        at = [(label, term.index(name)) for label, term in zip(operands, terms, strict=True) if name in term]
        sizes[name] = max(label.shape[dim] for label, dim in at)
        at = [(label, dim) for label, dim in at if label.shape[dim] > 1 or dim in label.axes]
        axes[name] = _joined(call, at, contracted=name not in output, reads=reads)
    if len(operands) > 1 and all(len(label.shape) > 2 for label in operands):
        shared = set(terms[0]).intersection(*terms[1:])
        call.attend(*(axis for name, axis in axes.items() if name not in shared or name not in output))
    call.cost(*(axes[name] or size for name, size in sizes.items()))
    found = {dim: axes[name] for dim, name in enumerate(output)}
    shape = tuple(sizes[name] for name in output)
    return Label(shape, {dim: axis for dim, axis in found.items() if axis is not None})


def _joined(call: Call, places: list[tuple[Label, int]], *, contracted: bool, reads: bool) -> Axis | None:
    """Unite the axes of one name; return the axis of the product."""
    like = next((label.axes[dim] for label, dim in places if dim in label.axes), None)
    if like is None:
        return None
    factors = [call.as_wide(label, dim, like) for label, dim in places]
    for other in factors[1:]:
        call.join(factors[0], other)
    first, present = factors[0], [axis for axis in factors if axis is not None]
    reading = contracted and (reads or (first is not None and not bool(first.source.any())))
    for number, (label, dim) in enumerate(places):
        if reading and number:
            call.consume(label.axes.get(dim))
        else:
            call.produce(label.axes.get(dim))
    result = Axis(like.ids, torch.stack([axis.source for axis in present]).amin(0))
    if contracted:
        call.findings.mark(Kind.CONTRACTED, result)
        call.blame(result.ids, first.source if reading and first is not None else result.source)
    return result


def _names(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return one letter per dimension of the operands and of the output; Greek letters stand for "..."."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    most = "".join(chr(0x3B1 + i) for i in range(max(hidden)))
    terms = [term.replace("...", most[len(most) - num :]) for term, num in zip(terms, hidden, strict=True)]
    if not arrow:
        together = "".join(terms)
        output = "..." + "".join(sorted(n for n in set(together) - set(most) if together.count(n) == 1))
    return terms, output.replace("...", most)

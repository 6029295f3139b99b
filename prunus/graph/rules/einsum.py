"""Einstein sums."""

import torch

from prunus.graph.call import Call
from prunus.graph.findings import Kind
from prunus.graph.labels import Axis, Label, Labels
from prunus.graph.rules.table import rule, unknown


@rule("einsum")
def einsum(call: Call) -> Labels:
    """A sum of products over named dimensions: those that the output does not name are contracted.

    A product is zero where one of its factors is.
    """
    operands: list[Label] = call["tensors"]
    terms, output = _names(call["equation"], [len(label.shape) for label in operands])
    if any(len(set(term)) < len(term) for term in terms):  # a diagonal
        return unknown(call)
    return _summed(call, operands, terms, output)


@rule("cdist")
def distances(call: Call) -> Label:
    """d[..., n, m] = ||a[..., n, :] - b[..., m, :]||: it does not see what is zero on both sides."""
    terms, output = _names("...nk,...mk->...nm", [len(label.shape) for label in call.labels])
    for axis in (label.behind(-1) for label in call.labels):
        call.produce(axis)
        if axis is not None:
            call.blame(axis.ids, axis.source)
    axes = _summed(call, call.labels, terms, output).axes
    return Label(call.shapes[0], {dim: call.changed(axis) for dim, axis in axes.items()})


@rule("dot", "vdot")
def dot(call: Call) -> Labels:
    """s = sum over i of a[i] b[i]."""
    return _summed(call, call.labels, ["i", "i"], "")


@rule("tensordot")
def tensordot(call: Call) -> Labels:
    """A sum of products over pairs of dimensions."""
    operands = call.labels[:2]
    ranks = [len(label.shape) for label in operands]
    first, second = ([chr(0x3B1 + at + ranks[0] * number) for at in range(ranks[number])] for number in (0, 1))
    for left, right in zip(call["dims_self"], call["dims_other"], strict=True):
        second[right] = first[left]
    output = [name for name in (*first, *second) if (name in first) != (name in second)]
    return _summed(call, operands, ["".join(first), "".join(second)], "".join(output))


def _summed(call: Call, operands: list[Label], terms: list[str], output: str) -> Label:
    """A sum of products over the named dimensions that the output lacks."""
    axes: dict[str, Axis | None] = {}
    for name in dict.fromkeys("".join(terms)):
        at = [(label, term.index(name)) for label, term in zip(operands, terms, strict=True) if name in term]
        at = [(label, dim) for label, dim in at if label.shape[dim] > 1 or dim in label.axes]
        axes[name] = _product(call, [label.axes.get(dim) for label, dim in at], contracted=name not in output)
    if len(operands) > 1 and all(len(label.shape) > 2 for label in operands):
        shared = set(terms[0]).intersection(*terms[1:])
        call.attend(*(axis for name, axis in axes.items() if name not in shared or name not in output))
    sizes = {n: s for label, term in zip(operands, terms, strict=True) for n, s in zip(term, label.shape, strict=True)}
    call.cost(*(axes[name] or size for name, size in sizes.items()))
    found = {dim: axes[name] for dim, name in enumerate(output)}
    return Label(call.shapes[0], {dim: axis for dim, axis in found.items() if axis is not None})


def _product(call: Call, factors: list[Axis | None], *, contracted: bool) -> Axis | None:
    """Join the axes of one name; what is contracted is read by all factors but the first, where that one is zero."""
    for other in factors[1:]:
        call.join(factors[0], other)
    present = [axis for axis in factors if axis is not None]
    if not present:
        return None
    result = Axis(present[0].ids, torch.stack([axis.source for axis in present]).amin(0))
    first = factors[0]
    reading = contracted and first is not None and not bool(first.source.any())
    for axis in present:
        if reading and axis is not first:
            call.consume(axis)
        else:
            call.produce(axis)
    if contracted:
        call.findings.mark(Kind.CONTRACTED, result)
        call.blame(result.ids, result.source)
    return result


def _names(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return a letter for each dimension of the operands and of the output; Greek ones stand for "..."."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    hidden = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    most = "".join(chr(0x3B1 + i) for i in range(max(hidden)))
    terms = [term.replace("...", most[len(most) - num :]) for term, num in zip(terms, hidden, strict=True)]
    if not arrow:
        together = "".join(terms)
        output = "..." + "".join(sorted(n for n in set(together) - set(most) if together.count(n) == 1))
    return terms, output.replace("...", most)

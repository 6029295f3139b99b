"""Locate the cause of a mismatch at another width: the hard-coded sizes there, and the channels near it."""

import collections
import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from prunus.graph.compare import Mismatch
from prunus.graph.findings import Findings, Mark
from prunus.graph.ids import NONE
from prunus.graph.other_width import TracedNetwork
from prunus.program import Value


def hard_coded_at(sizes: list[Mark], wrong: Mismatch) -> list[Mark]:
    """Return the hard-coded sizes at the line of the mismatch, else those of the innermost module around it with any.

    Sizes at these lines are returned for every module that runs them: the same line does the same in each.
    """
    found = [mark for mark in sizes if wrong.place.line and mark.line == wrong.place.line]
    parts = wrong.place.module.split(".")
    for num in range(len(parts), -1, -1) if wrong.place.line or parts[0] else ():
        found = found or [mark for mark in sizes if mark.module == ".".join(parts[:num])]
    lines = {mark.line for mark in found}
    return [mark for mark in sizes if mark.line in lines]


def channels_near(network: TracedNetwork, findings: Findings, wrong: Mismatch, alive: Tensor) -> Tensor:
    """Return the removed channels that are nearest to the mismatch, as whole classes of ids."""
    roots = torch.from_numpy(findings.ids.classes())
    for found in _places(network, wrong):
        ids = torch.cat([torch.tensor([NONE]), *found])
        gone = ids[~alive[ids]]
        if gone.numel():
            return _families(network, roots[gone], roots)
    return _families(network, roots[~alive], roots)


def _families(network: TracedNetwork, gone: Tensor, roots: Tensor) -> Tensor:
    """Return all ids along the dimensions of tensors that hold one of the classes `gone`."""
    found = [ids for ids in network.slots.values() if bool(torch.isin(roots[ids], gone).any())]
    return torch.unique(torch.cat(found)) if found else gone


def _places(network: TracedNetwork, wrong: Mismatch) -> Iterator[list[Tensor]]:
    """Yield ids from the nearest to the farthest: at the wrong operation, else at its line; at the operations that lead
    to it, the nearest first; inside all modules of its type, which run the same code; in these modules' tensors."""
    labels = collections.ChainMap(*(program.labels for program in network.programs))
    operations = [operation for program in network.programs for operation in program.program.operations]
    kinds = {path: type(module) for path, module in network.model.named_modules(remove_duplicate=False)}
    known, line, kind = wrong.operation, wrong.place.line, kinds.get(wrong.place.module)
    here = [known] if known is not None else [each for each in operations if line and each.line == line]
    modules = {path for path in kinds if path and kinds[path] is kind} or {each.module for each in here}
    inside = [each for each in operations if any(_within(each.module, path) for path in modules)]
    if known is None:
        here = [each for each in here if each in inside]
    near = [[value for each in here for value in (*each.results, *each.operands)]]
    before = _before([*known.operands]) if known is not None else ()
    for values in itertools.chain(near, before, [[value for each in inside for value in each.results]]):
        yield [axis.ids for value in values for axis in labels[value].axes.values()]
    own = [path for path in modules if path]
    yield [ids for (path, _), ids in network.slots.items() if any(_within(path, outer) for outer in own)]


def _before(values: list[Value]) -> Iterator[list[Value]]:
    """Yield `values`, then the values that they are computed from, one step farther each time."""
    seen = set[Value]()
    while values:
        yield values
        sources = dict.fromkeys(source for value in values if value.maker for source in value.maker.operands)
        values = [source for source in sources if source not in seen]
        seen.update(values)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")

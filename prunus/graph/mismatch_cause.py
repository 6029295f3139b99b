"""Locate the cause where a network goes wrong at another width: the hard-coded sizes there, the channels near it."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from prunus.graph.compare import Mismatch
from prunus.graph.findings import Findings, Mark
from prunus.graph.ids import NONE
from prunus.graph.other_width import Network
from prunus.graph.program import Operation, Value
from prunus.graph.walk import Reading

Place = tuple[Reading, Operation]


def hard_coded_at(sizes: list[Mark], wrong: Mismatch) -> list[Mark]:
    """Return the hard-coded sizes at the very line, else those of the innermost module around it that has some.

    The same line does the same in every module that runs it.
    """
    found = [mark for mark in sizes if wrong.place.line and mark.line == wrong.place.line]
    parts = wrong.place.module.split(".")
    for num in range(len(parts), -1, -1) if wrong.place.line or parts[0] else ():
        found = found or [mark for mark in sizes if mark.module == ".".join(parts[:num])]
    lines = {mark.line for mark in found}
    return [mark for mark in sizes if mark.line in lines]


def channels_near(network: Network, findings: Findings, wrong: Mismatch, alive: Tensor) -> Tensor:
    """Return the channels left out that reach the line, else those that went into what reaches it, the nearest first,
    else its modules', else all of them: whole classes of ids."""
    roots = torch.from_numpy(findings.ids.classes())
    for ids in _reaching(network, wrong):
        gone = ids[~alive[ids]]
        if gone.numel():
            families = _families(network, roots[gone], roots)
            return families[families != NONE]
    families = _families(network, roots[~alive], roots)
    return families[families != NONE]


def _families(network: Network, gone: Tensor, roots: Tensor) -> Tensor:
    """Return all ids of the tensors' dimensions that hold one of the classes `gone`."""
    found = [ids for ids in network.slots.values() if bool(torch.isin(roots[ids], gone).any())]
    return torch.unique(torch.cat(found)) if found else gone


def _reaching(network: Network, wrong: Mismatch) -> Iterator[Tensor]:
    every = [(reading, operation) for reading in network.readings for operation in reading.program.operations]
    known, line = wrong.operation, wrong.place.line
    here = [(r, o) for r, o in every if (o is known if known is not None else line and o.line == line)]
    kinds = {path: type(module) for path, module in network.model.named_modules(remove_duplicate=False)}
    kind = kinds.get(wrong.place.module)
    modules = {path for path in kinds if path and kinds[path] is kind} or {o.module for _, o in here}
    if known is None:
        here = [(r, o) for r, o in here if any(_within(o.module, path) for path in modules)]
    inside = [(r, o) for r, o in every if any(_within(o.module, path) for path in modules)]
    touched = [(r, value) for r, o in here for value in (*o.results, *o.operands)]
    for group in (
        touched,
        *(_before(here) if known is not None else ()),
        [(r, v) for r, o in inside for v in o.results],
    ):
        found = [axis.ids for reading, value in group for axis in reading.labels[value].axes.values()]
        if found:
            yield torch.cat(found)
    own = [ids for (path, _), ids in network.slots.items() if any(_within(path, outer) for outer in modules if outer)]
    if own:
        yield torch.cat(own)


def _before(places: Iterable[Place]) -> Iterator[list[tuple[Reading, Value]]]:
    """Yield what leads to an operation, a step farther each time."""
    values = [(reading, value) for reading, operation in places for value in operation.operands]
    seen = set[Value]()
    while values:
        yield values
        sources = [(r, source) for r, v in values if v.maker is not None for source in v.maker.operands]
        values = [(r, source) for r, source in dict.fromkeys(sources) if source not in seen]
        seen.update(value for _, value in values)


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")

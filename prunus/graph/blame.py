"""Where a network at another width goes wrong: the place in the code, the sizes written there, the channels near it."""

import traceback
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.fx import Node

from prunus.graph.compare import Mismatch, Probe, Reading
from prunus.graph.findings import Findings, Mark
from prunus.graph.ids import NONE
from prunus.graph.labels import Label
from prunus.graph.place import flat, line, module_path

Place = tuple[Reading, Node]


def place_of(error: BaseException, model: nn.Module) -> Mismatch:
    """Return where in the user's code an exception arose."""
    paths = {id(module): path for path, module in model.named_modules()}
    module, place = "", ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        module = paths.get(id(frame.f_locals.get("self")), module)
        file = frame.f_code.co_filename
        if "/torch/" not in file and "/prunus/graph/" not in file:
            place = f"{file}:{number}"
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return Mismatch(f"the code does not run at another width: {text[:160]}", module, place)


def written_at(written: list[Mark], wrong: Mismatch) -> list[Mark]:
    """Return the written sizes at the very line, else those of the innermost module around it that has some.

    The same line does the same in every module that runs it.
    """
    found = [mark for mark in written if wrong.line and mark.line == wrong.line]
    path = wrong.module
    while not found and path:
        found = [mark for mark in written if mark.module == path]
        path = path.rpartition(".")[0]
    lines = {mark.line for mark in found}
    return [mark for mark in written if mark.line in lines]


def channels_near(probe: Probe, findings: Findings, place: Mismatch, alive: Tensor) -> Tensor:
    """Return the channels left out that reach the line, else those that went into what reaches it, the nearest first,
    else its modules', else all of them: whole classes of ids."""
    roots = torch.from_numpy(findings.ids.classes())
    for ids in _reaching(probe, place):
        gone = ids[~alive[ids]]
        if gone.numel():
            families = _families(probe, roots[gone], roots)
            return families[families != NONE]
    families = _families(probe, roots[~alive], roots)
    return families[families != NONE]


def _families(probe: Probe, gone: Tensor, roots: Tensor) -> Tensor:
    """Return all ids of the tensors' dimensions that hold one of the classes `gone`."""
    found = [ids for ids in probe.slots.values() if bool(torch.isin(roots[ids], gone).any())]
    return torch.unique(torch.cat(found)) if found else gone


def _reaching(probe: Probe, place: Mismatch) -> Iterator[Tensor]:
    nodes = [(reading, node) for reading in probe.readings for node in reading.program.graph.nodes]
    here = [(r, n) for r, n in nodes if (n.name == place.node if place.node else place.line and line(n) == place.line)]
    kinds = {path: type(module) for path, module in probe.model.named_modules(remove_duplicate=False)}
    kind = kinds.get(place.module)
    modules = {path for path in kinds if path and kinds[path] is kind} or {module_path(node) for _, node in here}
    here = [(r, n) for r, n in here if place.node or any(_within(module_path(n), path) for path in modules)]
    inside = [(r, n) for r, n in nodes if any(_within(module_path(n), path) for path in modules)]
    with_inputs = [(r, other) for r, n in here for other in (n, *n.all_input_nodes)]
    for group in (with_inputs, *(_before(here) if place.node else ()), inside):
        labels = [label for reading, node in group for label in flat(reading.labels.get(node))]
        found = [axis.ids for label in labels if isinstance(label, Label) for axis in label.axes.values()]
        if found:
            yield torch.cat(found)
    own = [ids for (path, _), ids in probe.slots.items() if any(_within(path, outer) for outer in modules if outer)]
    if own:
        yield torch.cat(own)


def _before(places: list[Place]) -> Iterator[list[Place]]:
    """Yield what leads to a node, a step farther each time; of a constant, to what it meets."""
    while places and all(_is_constant(reading.labels.get(node)) for reading, node in places):
        places = [(reading, user) for reading, node in places for user in node.users]
    seen = set[Node]()
    while places:
        places = [
            (reading, source) for reading, node in places for source in node.all_input_nodes if source not in seen
        ]
        seen.update(node for _, node in places)
        yield places


def _is_constant(label: object) -> bool:
    return isinstance(label, Label) and label.data is not None


def _within(path: str, outer: str) -> bool:
    return not outer or path == outer or path.startswith(f"{outer}.")

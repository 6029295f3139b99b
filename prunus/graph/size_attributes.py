"""Attributes of modules that the code reads sizes from: `self.head_dim`, `self.num_heads`, `self.split_sizes`."""

import re
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from prunus.graph.findings import Kind, Mark
from prunus.graph.slots import Attribute
from prunus.modules.code import names_read, statement
from prunus.modules.numbers import numbers


def bindings(model: nn.Module, marks: Iterable[Mark]) -> list[Attribute]:
    """Return the attributes that hard-coded sizes may come from: attributes of equal value that the code reads.

    Attributes named on the line of the size are preferred to others of the module.
    """
    found = []
    for mark in marks:
        if mark.kind is Kind.HARD_CODED:
            for name, item in _candidates(model.get_submodule(mark.module), mark):
                found.append(Attribute(mark.module, name, item, mark.ids, mark.line))
    return found


def _candidates(module: nn.Module, mark: Mark) -> list[tuple[str, int]]:
    size, read = mark.ids.numel(), names_read(type(module))
    equal = [(name, item) for name, item, value in numbers(module) if value == size and name in read]
    text = statement(mark.line)
    places = {name: found.start() for name, _ in equal if (found := re.search(rf"\bself\.{name}\b", text))}
    named = sorted(((name, item) for name, item in equal if name in places), key=lambda one: places[one[0]])
    nth, of_all = mark.nth
    if len(named) == of_all:  # one attribute per size of this value, in the same order
        return [named[nth]]
    return named or equal


def count(ids: Tensor, alive: Tensor) -> int:
    """Count the ids that are `alive`, bool [num_ids]; ids of no channel count as alive."""
    return int(torch.where(ids == 0, True, alive[ids]).sum())

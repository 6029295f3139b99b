"""Whole residual blocks as choices: all layers of a block lose all their channels, or none of them does."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunus.budget.choices import Layer
from prunus.budget.tables import Tables, along
from prunus.graph import ChannelGroups
from prunus.modules.copying import copied
from prunus.modules.given import Inputs
from prunus.penalties.zeros import zero_
from prunus.surgery import Plan, apply, bypass
from prunus.surgery.removal import removal, spare_layers

FORBIDDEN = 1e3  # as a share of a bound: a choice with this cost never fits

Blocks = Mapping[str, frozenset[str]]  # block's path -> its layers, which vanish together


def add_blocks(cost: Tables, layers: Sequence[Layer], blocks: Blocks) -> None:
    """Add an entry to `cost`, which must not exceed zero, that forbids emptying only some layers of a block."""
    for members in blocks.values():
        positions = [number for number, layer in enumerate(layers) if layer.name in members]
        for pair in itertools.pairwise(positions):
            empty = [layers[one].counts == layers[one].size for one in pair]
            different = along(empty[0], 0, 2) != along(empty[1], 1, 2)
            if different.any():
                cost.add(pair, FORBIDDEN * different)


def plan_without(model: nn.Module, groups: ChannelGroups, gone: Tensor, inputs: Inputs | None) -> Plan:
    """Return the plan that removes the groups `gone`, bool [num_groups], and each block left without channels.

    Such a block becomes the constant that it computes from zeros.

    Args:
        model: the network, as traced; it is not changed.
        groups: `prunus.trace` of it.
        gone: the groups to remove.
        inputs: the example inputs; None where no layer loses all its channels.
    """
    spared = spare_layers(groups, gone)
    first = removal(groups, spared)
    if inputs is None or torch.equal(spared, gone):
        return first
    emptied = torch.unique(groups.layers[gone & ~spared])
    zeros = copied(model, isolated=True)
    zero_(zeros, groups, gone & torch.isin(groups.layers, emptied))
    return first + bypass(apply(first, zeros), inputs)


def possible_blocks(groups: ChannelGroups, floor: Mapping[str, int], blocks: Blocks) -> dict[str, frozenset[str]]:
    """Return the blocks whose layers may lose all their channels: block -> those layers."""
    whole = {name: bool(groups.exact[groups.layers == number].all()) for number, name in enumerate(groups.layer_names)}
    found = {}
    for path, members in blocks.items():
        empty = frozenset(name for name in members if floor.get(name) == 0 and whole.get(name, False))
        if empty:
            found[path] = empty
    return found

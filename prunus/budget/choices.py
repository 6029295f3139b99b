"""The choices: how many channels each layer loses, and how much importance is lost with each number of them.

Within a layer the less important groups go first, so their number determines which ones go. Groups of one layer
that occur in tensors of different sizes (queries and values of an attention) are decided separately.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from prunus.graph import ChannelGroups
from prunus.surgery.removal import whole_dimensions

MOST_PARTS = 4  # separately decided parts per layer; a layer with more is decided as a whole


@dataclasses.dataclass(frozen=True)
class Layer:
    """The choices for one layer, or for one part of it.

    Attributes:
        name: as in `ChannelGroups.layer_names`.
        size: its number of groups.
        order: the groups that may be removed, the least important first.
        counts: groups removed by each choice, ascending: int [num_choices]; the first is 0.
        lost: importance lost by each choice: float64 [num_choices].
    """

    name: str
    size: int
    order: Tensor
    counts: np.ndarray
    lost: np.ndarray

    def at(self, places: np.ndarray) -> "Layer":
        """Return the layer with only the choices `places`, ascending."""
        return dataclasses.replace(self, counts=self.counts[places], lost=self.lost[places])


def layer_choices(
    groups: ChannelGroups, importance: Tensor, floor: Mapping[str, int], multiple_of: int = 1
) -> list[Layer]:
    """Return each layer that may lose channels, with all choices that leave a multiple of `multiple_of`."""
    kept, kinds = most_important(groups, importance), _occurrences(groups)
    found = []
    for name, members in zip(groups.layer_names, exact_members(groups), strict=True):
        for part in _parts(members, kinds[members]):
            least = math.ceil(floor.get(name, 1) * part.numel() / max(1, members.numel()))
            order = removal_order(part, importance, kept, least)
            counts = np.array([0, *steps(part.numel(), order.numel(), multiple_of)])
            if counts.size > 1:
                lost = np.concatenate([[0.0], importance[order].double().cumsum(0).numpy()])[counts]
                found.append(Layer(name, part.numel(), order, counts, lost))
    return found


def removal_order(members: Tensor, importance: Tensor, kept: Tensor, least: int) -> Tensor:
    """Return the groups of `members` that may be removed while `least` stay, the least important first.

    Groups in `kept`, bool [num_groups], stay as well, unless `least` is zero.
    """
    candidates = members[~kept[members]] if least else members
    order = candidates[importance[candidates].argsort(stable=True)]
    return order[: max(0, min(order.numel(), members.numel() - least))]


def steps(size: int, spare: int, multiple_of: int) -> range:
    """Return the numbers, at most `spare` of `size` channels, whose removal leaves a multiple of `multiple_of`."""
    return range(size % multiple_of or multiple_of, spare + 1, multiple_of)


def sampled(layer: Layer, most: int, step: int = 1) -> np.ndarray:
    """Return the indices of at most `most` of a layer's choices, equally spaced, first and last choice included.

    All but these two leave a multiple of `step`, where such choices exist.
    """
    multiples = (layer.size - layer.counts) % step == 0
    multiples[[0, -1]] = True
    places = multiples.nonzero()[0]
    chosen = np.linspace(0, places.size - 1, min(most, places.size)).round().astype(np.int64)
    return np.unique(places[chosen])


def below(layer: Layer, places: np.ndarray) -> np.ndarray:
    """Return importances at `places`, lowered until no chord between neighbours lies above `lost`: [num_places].
    A minimum over `places` is then a lower bound for the choices between them, where the costs are linear there.
    """
    chords = np.interp(layer.counts, layer.counts[places], layer.lost[places])
    above = np.maximum(chords - layer.lost, 0.0)
    parts = np.maximum.reduceat(above, places[:-1]) if places.size > 1 else np.zeros(0)
    lowered: np.ndarray = layer.lost[places] - np.maximum(np.append(parts, 0.0), np.insert(parts, 0, 0.0))
    return lowered


def removed(groups: ChannelGroups, layers: Sequence[Layer], chosen: Sequence[int]) -> Tensor:
    """Return the groups that the choices `chosen` of `layers` remove: bool [num_groups]."""
    mask = torch.zeros(len(groups), dtype=torch.bool)
    for layer, choice in zip(layers, chosen, strict=True):
        mask[layer.order[: int(layer.counts[choice])]] = True
    return mask


def most_important(groups: ChannelGroups, importance: Tensor) -> Tensor:
    """Return the most important group of each dimension that consists of removable groups only: bool [num_groups]."""
    kept = torch.zeros(len(groups), dtype=torch.bool)
    for inside in whole_dimensions(groups):
        kept[inside[importance[inside].argmax()]] = True
    return kept


def exact_members(groups: ChannelGroups) -> Sequence[Tensor]:
    """Return the exactly removable groups of each layer, ascending."""
    exact = (groups.exact & (groups.layers >= 0)).nonzero().flatten()
    layers = groups.layers[exact]
    counts = torch.bincount(layers, minlength=len(groups.layer_names)).tolist()
    return torch.split(exact[layers.argsort(stable=True)], counts)


def _parts(members: Tensor, kinds: Tensor) -> list[Tensor]:
    """Return `members` split by `kinds`, or whole if there are more than `MOST_PARTS`."""
    different = torch.unique(kinds)
    return [members[kinds == kind] for kind in different] if different.numel() <= MOST_PARTS else [members]


def _occurrences(groups: ChannelGroups) -> Tensor:
    """Return a number per group, equal for groups that occur in the same sizes: int64 [num_groups]."""
    random = np.random.default_rng(0)
    numbers = torch.zeros(len(groups) + 1, dtype=torch.int64)  # index -1, no group, is the last
    factors = {
        factor.numpy().tobytes(): factor for term in groups.cost.macs + groups.cost.params for factor in term.factors
    }
    for factor in factors.values():
        number = torch.tensor(random.integers(1 << 62))  # large random numbers: equal sums mean equal summands
        numbers.index_add_(0, factor % numbers.numel(), number.expand(factor.shape))
    return numbers[:-1]

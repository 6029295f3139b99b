"""Layers that keep all their channels, named by patterns over their paths."""

import fnmatch
from collections.abc import Iterable

import torch
from torch import Tensor

from prunus.errors import RecipeError
from prunus.graph import ChannelGroups, Role
from prunus.graph.slots import PARAMETRISED
from prunus.modules.paths import near_paths


def patterns_of(keep: str | Iterable[str]) -> tuple[str, ...]:
    """Return one or several patterns as a tuple.

    Raises:
        RecipeError: a pattern is empty or not a string.
    """
    patterns = (keep,) if isinstance(keep, str) else tuple(keep) if isinstance(keep, Iterable) else (keep,)
    if wrong := [pattern for pattern in patterns if not isinstance(pattern, str) or not pattern]:
        raise RecipeError(f'keep takes patterns over the paths of layers, as in keep=["stem.*"], not {wrong[0]!r:.80}')
    return patterns


def kept_groups(groups: ChannelGroups, keep: str | Iterable[str]) -> Tensor:
    """Return the groups of the channels that the layers matched by `keep` produce: bool [num_groups].

    A kept layer keeps all channels that it produces, and so do layers that produce the same ones, as on a skip
    connection. It still loses inputs where the layers before it lose outputs, unless they are kept too.

    Args:
        groups: `prunus.trace` of the network.
        keep: globs over dotted paths ("stem.*", "*.conv1"; `*` also matches dots). A module's path matches everything
            in the module.

    Raises:
        RecipeError: a pattern matches no layer; names similar layers.
    """
    kept = torch.zeros(len(groups) + 1, dtype=torch.bool)
    paths = [PARAMETRISED.sub(r"\1\2", slot.path) for slot in groups.slots]
    for pattern in patterns_of(keep):
        matching = [fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}.*") for path in paths]
        if not any(matching):
            layers = dict.fromkeys(path.rpartition(".")[0] or path for path in paths)
            raise RecipeError(
                f"keep: {pattern!r} matches no layer that makes or reads channels{near_paths(pattern, layers)}"
            )
        for slot, matches in zip(groups.slots, matching, strict=True):
            if matches and slot.role is not Role.CONSUMER:
                kept[slot.groups] = True  # index -1, no group, is the last
    return kept[:-1]

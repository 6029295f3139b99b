"""SetAttribute: a number of channels that a module keeps (`head_dim`, `num_heads`) follows the plan's cuts.

Plans are read from files that anybody may have written. A number is therefore set only if the module's code reads it or
its name states that it is a width (`prunus.modules.noted_numbers`), if it is not a setting of a torch layer, and if the
cuts of the same edit change it from `before` to `after`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from prunus.errors import EditError
from prunus.modules.code import names_read
from prunus.modules.kinds import SizedLayer
from prunus.modules.noted_numbers import Meaning, number_at, numbers_of
from prunus.modules.numbers import numbers

SETTINGS = {"stride", "padding", "output_padding", "dilation", "kernel_size", "version"}  # do not count channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """Indices to remove from one dimension of one tensor."""

    path: str
    dim: int
    size: int  # of the dimension before the cut, so that a plan for another network is refused
    remove: tuple[int, ...]  # ascending

    def keep(self) -> Tensor:
        """Return the indices that are kept, ascending."""
        return self.mask().nonzero().flatten()

    def mask(self) -> Tensor:
        """Return whether each index is kept, bool [size]."""
        mask = torch.ones(self.size, dtype=torch.bool)
        mask[list(self.remove)] = False
        return mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetAttribute:
    """A number that counts channels (`head_dim`, `num_features`) and changes with them."""

    path: str  # path of the module
    name: str  # name of the attribute, or keys joined with dots, as "config.hidden_size"
    item: int = -1  # the index where the attribute is a list or a tuple
    before: int  # the present value, checked so that a plan for another network is refused
    after: int
    taken: tuple[Cut, ...] = ()  # parts of the plan's cuts that together remove its channels, where no single cut does

    def check(self, model: nn.Module, cuts: Sequence[Cut]) -> None:
        """Raise `EditError` if the attribute is not `before`, or `cuts` do not make it `after`."""
        place = f"{self.path}.{self.name}" + (f"[{self.item}]" if self.item >= 0 else "")
        try:
            module = model.get_submodule(self.path)
            found = number_at(module, self.name)
            found = found[self.item] if self.item >= 0 else found
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise EditError(f"{place}: {type(model).__name__} has no such attribute") from error
        if type(found) is not int or found != self.before:
            raise EditError(f"{place} is {found!r}, the plan is for {self.before}: it was made for another network")
        if not 1 <= self.after < self.before:
            raise EditError(
                f"{place} would become {self.after}: it counts {self.before} channels, so it must become "
                f"1..{self.before - 1}"
            )
        if not _may_count(module, self.name):
            raise EditError(
                f"{place} is not a number of channels: the code of {type(module).__name__} does not read it and its "
                "name is not a width"
            )
        if not self.follows(cuts):
            raise EditError(
                f"{place} would become {self.after}, and no cut of the plan leaves {self.after} of {self.before} "
                "channels: make a new plan with prunus.select"
            )

    def follows(self, cuts: Sequence[Cut]) -> bool:
        """Return whether `cuts` leave `after` of `before` channels.

        The number may count a whole dimension, each of its equal parts (the size of a head), their number (of heads) or
        a range (a part of a split). If `taken` is given, it counts the indices removed in `taken`, parts of the cuts.
        """
        if self.taken:
            there: Mapping[tuple[str, int, int], set[int]] = {(c.path, c.dim, c.size): set(c.remove) for c in cuts}
            known = all(set(c.remove) <= there.get((c.path, c.dim, c.size), set()) for c in self.taken)
            return known and sum(len(c.remove) for c in self.taken) == self.before - self.after
        left, before = self.after, self.before
        even = (c for c in cuts if c.size % before == 0 and (c.size - len(c.remove)) * before == left * c.size)
        if any(_leaves_evenly(c.mask(), before, left) for c in even):
            return True
        larger = (c for c in cuts if c.size > before and len(c.remove) >= before - left)
        return any(_leaves_in_a_range(c.mask(), before, left) for c in larger)

    def __str__(self) -> str:
        """Return the change, for summaries."""
        item = f"[{self.item}]" if self.item >= 0 else ""
        return f"{self.path or 'the network'}.{self.name}{item} {self.before} -> {self.after}"


def _leaves_evenly(mask: Tensor, before: int, after: int) -> bool:
    """Return whether `mask`, viewed as [outer, before, inner] for some sizes, keeps `after` whole entries of the middle
    dimension in each outer one."""
    rest = mask.numel() // before
    for outer in range(1, rest + 1):
        if rest % outer:
            continue
        kept = mask.view(outer, before, -1)
        if bool((kept.all(2) == kept.any(2)).all()) and bool((kept.all(2).sum(1) == after).all()):
            return True
    return False


def _leaves_in_a_range(mask: Tensor, before: int, after: int) -> bool:
    """Return whether some range of `before` indices in `mask` keeps `after`."""
    kept = torch.cat([torch.zeros(1, dtype=torch.long), mask.long().cumsum(0)])
    return bool((kept[before:] - kept[:-before] == after).any())


def _may_count(module: nn.Module, name: str) -> bool:
    """Return whether a trace may find that a number counts channels: its name states it, or the module's code reads it
    and it is not a setting of a torch layer, whose sizes follow their tensors anyway."""
    if any(name == one.name and one.meaning is not Meaning.UNKNOWN for one in numbers_of(module)):
        return True
    settled = isinstance(module, SizedLayer) and not isinstance(module, nn.GroupNorm)  # its `num_groups` may be set
    if name.startswith("_") or settled or name in SETTINGS:
        return False
    return name in names_read(type(module)) and any(name == other for other, _, _ in numbers(module))

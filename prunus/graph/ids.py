"""Channel ids: every channel is an integer, and operators unite the integers that are the same channel."""

import numpy as np
import torch
from torch import Tensor

NONE = 0  # the id of an element that belongs to no channel


class ChannelIds:
    """Hands out channel ids and joins them: a union-find over arrays.

    `unite` only collects the pairs; `classes` resolves them all at once. Ids count from 1; 0 is `NONE`.
    """

    def __init__(self) -> None:
        self.count = 1
        self._pairs: list[tuple[Tensor, Tensor]] = []  # not yet in `_root`
        self._root = np.arange(1)  # the class of each id that existed at the last call of `classes`

    def copy(self) -> "ChannelIds":
        """Return a copy with the same unions; later unions in either do not affect the other."""
        other = ChannelIds()
        other.count, other._pairs, other._root = self.count, [*self._pairs], self._root
        return other

    def new(self, num: int) -> Tensor:
        """Return `num` fresh ids, shape [num]."""
        ids = torch.arange(self.count, self.count + num)
        self.count += num
        return ids

    def unite(self, first: Tensor, second: Tensor) -> None:
        """Declare `first[i]` and `second[i]` to be the same channel; `NONE` on either side unites nothing."""
        if first is not second:
            self._pairs.append((first, second))

    def classes(self) -> np.ndarray:
        """Return the class of each id, shape [count]: the smallest id united with it, itself included.

        Every round hooks the larger root of a pair under the smaller one and then halves all paths, so the number of
        rounds grows with the logarithm of the longest chain. Resolved pairs are not looked at again.
        """
        if self._pairs or self._root.size < self.count:
            self._root, self._pairs = self._resolved(), []
        return self._root

    def _resolved(self) -> np.ndarray:
        root = np.concatenate([self._root, np.arange(self._root.size, self.count)])
        if not self._pairs:
            return root
        first = np.concatenate([a.reshape(-1).numpy() for a, _ in self._pairs])
        second = np.concatenate([b.reshape(-1).numpy() for _, b in self._pairs])
        keep = (first != NONE) & (second != NONE) & (first != second)
        first, second = first[keep], second[keep]
        while first.size:
            low, high = np.minimum(root[first], root[second]), np.maximum(root[first], root[second])
            np.minimum.at(root, high, low)
            while not np.array_equal(root, halved := root[root]):
                root = halved
            open_pairs = root[first] != root[second]
            first, second = first[open_pairs], second[open_pairs]
        return root

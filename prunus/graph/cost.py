"""The cost of a network at given widths: multiply-adds and parameters as sums of products of sizes."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Term:
    """One operator's MACs or one tensor's size: fixed * product over `factors` of the channels alive in it.

    A factor is a vector of group numbers, one per channel; -1 stands for a channel that stays.
    """

    module: str
    fixed: int
    factors: tuple[Tensor, ...]

    def at(self, alive: Tensor) -> int:
        """Return the cost with the groups `alive`, bool [num_groups]."""
        result = self.fixed
        for factor in self.factors:
            result *= num_alive(factor, alive)
        return result

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "Term":
        """Return the term with every factor's numbers replaced."""
        return dataclasses.replace(self, factors=tuple(map(function, self.factors)))


def num_alive(factor: Tensor, alive: Tensor) -> int:
    """Count the channels of a factor that are alive; group -1 always is."""
    groups = factor[factor >= 0]
    return int(alive[groups].sum()) + factor.numel() - groups.numel()


@dataclasses.dataclass(frozen=True)
class CostModel:
    """MACs (one multiply-add = 1) at the traced input's size, and parameters."""

    macs: tuple[Term, ...]
    params: tuple[Term, ...]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "CostModel":
        """Return the model with every factor's group numbers replaced."""
        macs, params = (tuple(term.mapped(function) for term in terms) for terms in (self.macs, self.params))
        return CostModel(macs, params)

    def total(self, kind: str, alive: Tensor) -> int:
        """Return the cost `kind` ("macs" or "params") with the groups `alive`, bool [num_groups]."""
        return sum(term.at(alive) for term in self._terms(kind))

    def by_module(self, kind: str, alive: Tensor) -> dict[str, int]:
        """Return the cost `kind` of each module with the groups `alive`, the largest first."""
        found: dict[str, int] = {}
        for term in self._terms(kind):
            found[term.module] = found.get(term.module, 0) + term.at(alive)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def saving(self, kind: str, alive: Tensor) -> Tensor:
        """Return the cost saved by removing each group alone, to first order in its channels: float64 [num_groups]."""
        result = torch.zeros(alive.numel() + 1, dtype=torch.float64)
        for term in self._terms(kind):
            sizes = [num_alive(factor, alive) for factor in term.factors]
            for position, factor in enumerate(term.factors):
                rest = float(term.fixed)
                for other, size in enumerate(sizes):
                    rest *= size if other != position else 1
                result.index_add_(0, factor % result.numel(), torch.full(factor.shape, rest, dtype=torch.float64))
        return result[:-1] * alive

    def _terms(self, kind: str) -> tuple[Term, ...]:
        return {"macs": self.macs, "params": self.params}[kind]

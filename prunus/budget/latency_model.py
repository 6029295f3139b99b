"""A network's latency as a function of its widths: units measured alone, and a rest fitted to whole networks.

latency = s * sum of the units' milliseconds + m * multiply-adds outside of units + a * numbers that units write
+ b * those of widths that need a layout conversion + c, with all weights >= 0. A unit is what a backend runs
as one kernel (a convolution with its BatchNorm, activation and addition); its milliseconds depend on all the sizes that
affect it. The weights are fitted to measured whole networks, and again after each further measurement.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from prunus.budget.choices import Layer
from prunus.budget.tables import Sizes, Tables, along, combined, product_tables
from prunus.graph import ChannelGroups
from prunus.graph.cost import Term, num_alive

MOST_LAYERS = 3  # per table of a unit; with more, a unit counts as linear in each of its sizes
PRIOR = np.array([1.0, 0.0, 0.0, 0.0, 0.0])  # weights before any measurement
NEWER = 0.5  # weight of a measurement relative to the next


@dataclasses.dataclass(frozen=True)
class Curve:
    """Milliseconds over one or two sizes: multilinear between `levels`, in steps, slower off the steps.

    Attributes:
        levels: the sizes measured along each axis, ascending.
        values: milliseconds at the levels.
        steps: per axis, a size costs as much as the next multiple of this.
        penalties: per axis, the factor for sizes off the step.
    """

    levels: tuple[np.ndarray, ...]
    values: np.ndarray
    steps: tuple[int, ...]
    penalties: tuple[float, ...]

    def at(self, *sizes: np.ndarray) -> np.ndarray:
        """Return the milliseconds at `sizes`, arrays that broadcast; 0 where a size is 0."""
        shape = np.broadcast_shapes(*(np.shape(size) for size in sizes))
        factor, corners = np.ones(shape), []
        for size, levels, step, penalty in zip(sizes, self.levels, self.steps, self.penalties, strict=True):
            rounded = np.ceil(size / step) * step
            factor = factor * np.where(np.asarray(size) == 0, 0.0, np.where(rounded == size, 1.0, penalty))
            corners.append(_neighbours(np.minimum(rounded, max(levels[-1], 1)), levels))
        total = np.zeros(shape)
        for corner in itertools.product((0, 1), repeat=len(sizes)):
            weight, index = np.ones(shape), list[np.ndarray]()
            for side, (low, share) in zip(corner, corners, strict=True):
                weight = weight * (share if side else 1 - share)
                index.append(np.minimum(low + side, self.values.shape[len(index)] - 1))
            total = total + weight * self.values[tuple(np.broadcast_arrays(*index))]
        result: np.ndarray = total * factor
        return result


def _neighbours(size: np.ndarray, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of the level below `size`, and the position towards the next one, in [0, 1]."""
    place = np.interp(size, levels, np.arange(levels.size))
    low = np.floor(place).astype(np.int64)
    return low, place - low


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """Operators that a backend runs as one.

    Attributes:
        name: dotted path of the module.
        curve: the unit's milliseconds over `sizes`.
        sizes: the groups of the channels along each axis of the curve, as the factors of a `Term`.
        written: numbers written per channel of the first size.
        shape: its properties at any width; with the name, they identify it.
    """

    name: str
    curve: Curve
    sizes: tuple[Tensor, ...]
    written: float
    shape: str = ""

    def milliseconds(self, alive: Tensor) -> float:
        """Return the unit's milliseconds with the groups `alive`, bool [num_groups]."""
        return float(self.curve.at(*(np.array(num_alive(size, alive)) for size in self.sizes)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatencyModel:
    """The latency of a network on one target.

    Attributes:
        units: the units that were measured alone.
        others: multiply-adds outside of all units.
        weights: of units, multiply-adds of `others`, numbers written, those at widths off `block`, and 1: float64 [5].
        step: the costs of units jump at multiples of this width.
        block: channels are laid out in blocks of this many; others are converted there and back.
    """

    units: tuple[Unit, ...]
    others: tuple[Term, ...]
    weights: np.ndarray
    step: int = 1
    block: int = 1

    def features(self, alive: Tensor) -> np.ndarray:
        """Return the quantities that the weights multiply: float64 [5]."""
        units = sum(unit.milliseconds(alive) for unit in self.units)
        made = [(unit.written, num_alive(unit.sizes[0], alive)) for unit in self.units]
        written = sum(each * width for each, width in made)
        misfit = sum(each * width for each, width in made if width % self.block)
        return np.array([units, float(sum(term.at(alive) for term in self.others)), written, misfit, 1.0])

    def predicted(self, alive: Tensor) -> float:
        """Return the milliseconds of the network with the groups `alive`, bool [num_groups]."""
        return float(self.weights @ self.features(alive))

    def parts(self, alive: Tensor) -> dict[str, float]:
        """Return the milliseconds of each unit, by name; "" for the rest."""
        found: dict[str, float] = {}
        for unit in self.units:
            found[unit.name] = found.get(unit.name, 0.0) + float(self.weights[0]) * unit.milliseconds(alive)
        return {**found, "": float(self.weights[1:] @ self.features(alive)[1:])}

    def fitted(self, measured: Sequence[tuple[Tensor, float]]) -> "LatencyModel":
        """Return the model with weights that best fit networks (groups alive, milliseconds), the last one exactly.

        The fit is least squares of relative errors. Each network has twice the weight of the one before it, and the
        weights are drawn towards their present values.
        """
        from scipy.optimize import nnls

        rows = np.array([self.features(alive) for alive, _ in measured])
        taken = np.array([milliseconds for _, milliseconds in measured])
        scale = np.maximum(rows.max(axis=0), 1e-30) / taken.mean()  # for weights near one
        trust = np.sqrt(NEWER ** np.arange(len(measured))[::-1]) / taken
        prior = 0.05 * np.eye(rows.shape[1])
        left = np.vstack([rows / scale * trust[:, None], prior])
        right = np.concatenate([taken * trust, prior @ (self.weights * scale)])
        weights = nnls(left, right)[0] / scale
        return dataclasses.replace(self, weights=weights * taken[-1] / float(rows[-1] @ weights))

    def tables(self, groups: ChannelGroups, layers: Sequence[Layer]) -> Tables:
        """Return the milliseconds as a function of the choices of `layers`."""
        counted = Sizes(groups, layers)
        units, others, written, misfit = (Tables(0.0, {}) for _ in range(4))
        for unit in self.units:
            sizes = [counted.of(size) for size in unit.sizes]
            _add_unit(units, unit.curve, sizes)
            product_tables(written, unit.written, sizes[:1])
            _add_misfit(misfit, unit.written, sizes[0], self.block)
        for term in self.others:
            product_tables(others, float(term.fixed), [counted.of(factor) for factor in term.factors])
        parts = (units, others, written, misfit, Tables(1.0, {}))
        return combined(zip(map(float, self.weights), parts, strict=True))


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownUnit:
    """A unit's curve as plain data; see `Unit` and `Curve`."""

    name: str
    shape: str
    levels: tuple[tuple[int, ...], ...]
    values: tuple[float, ...]
    steps: tuple[int, ...]
    penalties: tuple[float, ...]

    @classmethod
    def of(cls, unit: Unit) -> "KnownUnit":
        """Return the plain data of `unit`."""
        curve = unit.curve
        return cls(
            name=unit.name,
            shape=unit.shape,
            levels=tuple(tuple(map(int, each)) for each in curve.levels),
            values=tuple(map(float, curve.values.ravel())),
            steps=curve.steps,
            penalties=tuple(map(float, curve.penalties)),
        )

    @property
    def curve(self) -> Curve:
        """The curve as a `Curve`."""
        levels = tuple(np.array(each) for each in self.levels)
        values = np.array(self.values).reshape([len(each) for each in self.levels])
        return Curve(levels=levels, values=values, steps=self.steps, penalties=self.penalties)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownLatency:
    """A latency model without its network, as plain data: the part that stays valid as the network becomes narrower."""

    units: tuple[KnownUnit, ...]
    weights: tuple[float, ...]
    step: int
    block: int

    @classmethod
    def of(cls, model: LatencyModel) -> "KnownLatency":
        """Return the plain data of `model`."""
        units = tuple(map(KnownUnit.of, model.units))
        return cls(units=units, weights=tuple(map(float, model.weights)), step=model.step, block=model.block)


def _add_unit(tables: Tables, curve: Curve, sizes: Sequence[dict[int | None, np.ndarray]]) -> None:
    """Add a unit's milliseconds to `tables`; its sizes are sums over layers."""
    scope = tuple(sorted({position for size in sizes for position in size if position is not None}))
    if len(scope) <= MOST_LAYERS:
        tables.add(scope, curve.at(*(_total(size, scope) for size in sizes)))
        return
    # sizes that sum over many layers (DenseNet): a plane, fitted to the levels by least squares of relative errors
    grid = np.meshgrid(*curve.levels, indexing="ij")
    terms = [np.ones_like(grid[0]), *grid, *([grid[0] * grid[1]] if len(grid) == 2 else [])]
    matrix = np.stack([term.ravel() for term in terms], axis=1).astype(np.float64)
    weight = 1 / np.maximum(curve.values.ravel(), 1e-9)
    found = np.linalg.lstsq(matrix * weight[:, None], curve.values.ravel() * weight, rcond=None)[0]
    tables.constant += float(found[0])
    for coefficient, size in zip(found[1:], sizes, strict=False):
        product_tables(tables, float(coefficient), [size])
    if len(sizes) == 2:
        product_tables(tables, float(found[3]), sizes)


def _add_misfit(tables: Tables, written: float, size: dict[int | None, np.ndarray], block: int) -> None:
    """Add the numbers written where the width is not a multiple of `block`."""
    scope = tuple(sorted(position for position in size if position is not None))
    if len(scope) <= MOST_LAYERS and block > 1:
        width = _total(size, scope)
        tables.add(scope, written * width * (width % block != 0))


def _total(size: dict[int | None, np.ndarray], scope: tuple[int, ...]) -> np.ndarray:
    """Return a size as an array over the choices of the layers `scope`."""
    total: np.ndarray = np.zeros([1] * len(scope)) + size[None]
    for position, counts in size.items():
        if position is not None:
            total = total + along(counts, scope.index(position), len(scope))
    return total

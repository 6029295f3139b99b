"""How a unit's milliseconds depend on its sizes, determined with few measurements.

Along each axis a probe finds the step of the target's kernels (vector width, tile) and the cost of a size off the step.
Then multiples of the step are measured; an interval is halved where a straight line misses its middle.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from prunus.budget.latency_model import Curve

STEPS = (1, 2, 4, 8, 16, 32)
BETTER = 0.8  # a larger step must reduce the error below this share
MISSED = 0.06  # relative error in the middle up to which an interval is not halved
MOST_LEVELS = 6  # along one axis
LEAST = 0.08  # smallest level, as a share of the full size
PLANNED_LEVELS = 5  # along one axis, if they are planned
WINDOW = 64  # largest size that is probed for the step

Milliseconds = Callable[[tuple[int, ...]], float]


def measured_curve(
    full: Sequence[int], is_open: Sequence[bool], measure: Milliseconds, *, planned: bool = False
) -> Curve:
    """Return the curve of a unit.

    Args:
        full: its sizes in the network.
        is_open: for each axis whether the size may change.
        measure: returns its milliseconds at given sizes.
        planned: measure at `planned_sizes`, which do not depend on measurements.
    """
    axis = _planned_axis if planned else _axis
    axes = [
        axis(full, number, measure) if open_ else _Axis(1, 1.0, np.array([full[number]]))
        for number, open_ in enumerate(is_open)
    ]
    grid = np.stack(np.meshgrid(*(axis.levels for axis in axes), indexing="ij"), axis=-1)
    values = np.array([measure(tuple(map(int, sizes))) for sizes in grid.reshape(-1, len(axes))])
    return Curve(
        levels=tuple(axis.levels for axis in axes),
        values=values.reshape(grid.shape[:-1]),
        steps=tuple(axis.step for axis in axes),
        penalties=tuple(axis.penalty for axis in axes),
    )


@dataclasses.dataclass(frozen=True)
class _Axis:
    step: int
    penalty: float
    levels: np.ndarray


def _axis(full: Sequence[int], number: int, measure: Milliseconds) -> _Axis:
    """Return the step, the penalty and the levels of one axis; levels are measured with the other at its full size."""

    def at(size: int) -> float:
        return measure(_with(full, number, size))

    step, penalty = _step(full, number, measure)
    top = -(-full[number] // step) * step
    bottom = min(top, max(step, round(LEAST * top / step) * step))
    known = {size: at(size) for size in {bottom, top}}
    while len(known) < MOST_LEVELS:
        missed, new = {}, {}
        for low, high in itertools.pairwise(sorted(known)):
            middle = (low + high) // 2 // step * step
            if low < middle < high:
                new[middle] = at(middle)
                line = known[low] + (known[high] - known[low]) * (middle - low) / (high - low)
                missed[middle] = abs(new[middle] / line - 1)
        worst = sorted((m for m in missed if missed[m] > MISSED or len(known) < 3), key=lambda m: -missed[m])
        known |= {middle: new[middle] for middle in worst[: MOST_LEVELS - len(known)]}
        if not worst:
            break
    return _Axis(step, penalty, np.array(sorted(known)))


def planned_sizes(full: Sequence[int], is_open: Sequence[bool]) -> list[tuple[int, ...]]:
    """Return the sizes at which a unit is measured without feedback from measurements, as on another machine."""
    levels = [planned_levels(size) if open_ else [size] for size, open_ in zip(full, is_open, strict=True)]
    found = dict.fromkeys(itertools.product(*levels))
    for number in (number for number, open_ in enumerate(is_open) if open_):
        near = _near(full)
        found |= dict.fromkeys(_with(near, number, size) for size in probe_sizes(near[number]))
    return list(found)


def planned_levels(size: int) -> list[int]:
    """Return at most `PLANNED_LEVELS` levels of an axis up to `size`, multiples of a step that grows with `size`."""
    step = 32 if size >= 128 else 8 if size >= 16 else 1
    top = -(-size // step)
    bottom = max(1, round(LEAST * top))
    return sorted({step * round(level) for level in np.linspace(bottom, top, PLANNED_LEVELS).tolist()})


def _planned_axis(full: Sequence[int], number: int, measure: Milliseconds) -> _Axis:
    step, penalty = _step(full, number, measure)
    levels = planned_levels(full[number])
    return _Axis(step, penalty, np.array([level for level in levels if level % step == 0] or levels))


def _step(full: Sequence[int], number: int, measure: Milliseconds) -> tuple[int, float]:
    """Return the step and the penalty of one axis, with all axes limited to the window."""
    near = _near(full)
    return fitted_step({size: measure(_with(near, number, size)) for size in probe_sizes(near[number])})


def _near(full: Sequence[int]) -> list[int]:
    return [min(size, WINDOW) for size in full]


def _with(sizes: Sequence[int], number: int, size: int) -> tuple[int, ...]:
    return (*sizes[:number], size, *sizes[number + 1 :])


def probe_sizes(most: int) -> list[int]:
    """Return sizes up to `most`, on and off the multiples of each step."""
    multiples = {m for step in STEPS for m in range(step, most + 1, step) if m >= most // 4 and step >= 8}
    offsets = {m - off for m in (*multiples, most) for off in (0, 1, 2, 4) if m - off >= max(1, most // 4)}
    return sorted(offsets)


def fitted_step(taken: dict[int, float]) -> tuple[int, float]:
    """Return the step and the penalty that fit the milliseconds by size best, the smallest step of similar ones."""
    sizes, times = np.array(list(taken)), np.array(list(taken.values()))
    best, least = (1, 1.0), np.inf
    for step in STEPS:
        rounded = np.ceil(sizes / step) * step
        on = rounded == sizes
        if on.sum() < 2 or (step > 1 and on.all()):
            continue
        matrix = np.stack([np.ones(sizes.size), rounded], axis=1)
        line = matrix @ np.linalg.lstsq(matrix[on] / times[on, None], np.ones(on.sum()), rcond=None)[0]
        penalty = max(1.0, float(np.median(times[~on] / line[~on]))) if not on.all() else 1.0
        error = float((((line * np.where(on, 1.0, penalty)) / times - 1) ** 2).mean())
        if error < BETTER * least:
            best, least = (step, penalty), error
    return best

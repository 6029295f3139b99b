"""Slices of a split, their metrics for two networks, and paired bootstrap intervals over images."""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from prunus.gate.settings import Gate
from prunus.tasks.statistics import Counts

FELL, KEPT, DOUBTFUL, SMALL = "fell", "kept", "in doubt", "too small"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slice:
    """A part of a split: some units (classes, or classes within a group) on all images or on those of a condition."""

    kind: str
    name: str
    units: tuple[int, ...]
    images: Tensor | None = None  # bool [N]; None: all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A slice's metric for both networks, in [0, 1] or None if undefined, with the interval of its drop and a verdict.

    Attributes:
        low, high: the confidence interval of the drop, wide minus narrow.
        verdict: FELL, KEPT: the whole interval is above or within the allowed drop; DOUBTFUL: neither; SMALL: unjudged.
    """

    kind: str
    name: str
    samples: int
    wide: float | None
    narrow: float | None
    low: float | None
    high: float | None
    verdict: str

    @property
    def drop(self) -> float | None:
        """Wide minus narrow."""
        return None if self.wide is None or self.narrow is None else self.wide - self.narrow


def slices_of(counts: Counts, conditions: Sequence[tuple[str, ...]], per: Sequence[str]) -> list[Slice]:
    """Return the whole split and the slices of the kinds `per`; kinds that the data do not provide are left out."""
    units = counts.units
    whole = tuple(number for number, unit in enumerate(units) if unit.kind == "class")
    found = [Slice(kind="all", name="all", units=whole)]
    named = {tag: torch.tensor([tag in own for own in conditions]) for tag in sorted({*sum(conditions, ())})}
    for kind in per:
        if kind == "class":
            found += [Slice(kind=kind, name=units[number].label, units=(number,)) for number in whole]
        elif kind == "condition":
            found += [Slice(kind=kind, name=tag, units=whole, images=images) for tag, images in named.items()]
        elif kind == "class in condition":
            found += [
                Slice(kind=kind, name=f"{units[number].label}, {tag}", units=(number,), images=images)
                for tag, images in named.items()
                for number in whole
            ]
        else:
            for name in dict.fromkeys(unit.name for unit in units if unit.kind == kind):
                own = tuple(number for number, unit in enumerate(units) if (unit.kind, unit.name) == (kind, name))
                found.append(Slice(kind=kind, name=name, units=own))
    return found


def judge(wide: Counts, narrow: Counts, slices: Sequence[Slice], settings: Gate) -> list[Judged]:
    """Judge each slice; return the slices, the worst first.

    Both networks get the same images, drawn with replacement, so that the varying difficulty of the images does not
    widen the interval of the drop.
    """
    num = wide.numbers.shape[1]
    weights = _resampled(num, settings)
    values = dict[int, list[Tensor]]()
    for images in _sets(slices):
        own = [number for number, each in enumerate(slices) if each.images is images]
        inside = weights if images is None else weights * images[:, None]
        both = [counts.values([slices[number].units for number in own], inside) for counts in (wide, narrow)]
        for place, number in enumerate(own):
            values[number] = [each[place] for each in both]
    found = [_judged(each, values[number], wide, settings) for number, each in enumerate(slices)]
    return worst_first(found)


def worst_first(slices: Sequence[Judged]) -> list[Judged]:
    """Return the judged slices by descending drop, then those that are not judged."""
    return sorted(slices, key=_badness, reverse=True)


def _resampled(num: int, settings: Gate) -> Tensor:
    """Return the weight of each image, [N, 1 + resamples]: column 0 is the split itself, the others are resamples."""
    generator = torch.Generator().manual_seed(settings.seed)
    drawn = torch.randint(num, (settings.resamples, num), generator=generator)
    weights = torch.zeros(settings.resamples, num).scatter_add_(1, drawn, torch.ones(drawn.shape))
    return torch.cat([torch.ones(num, 1), weights.T], dim=1)


def _sets(slices: Sequence[Slice]) -> list[Tensor | None]:
    """Return each set of images once, so that its slices share one matrix product."""
    return list({id(each.images): each.images for each in slices}.values())


def _judged(each: Slice, values: Sequence[Tensor], counts: Counts, settings: Gate) -> Judged:
    number = counts.num_samples(each.units, each.images)
    first, second = (None if bool(value[0].isnan()) else float(value[0]) for value in values)
    drops = (values[0] - values[1])[1:]
    drops = drops[~drops.isnan()]
    low = high = None
    if len(drops) and first is not None and second is not None:
        tail = (1 - settings.confidence) / 2
        low, high = torch.quantile(drops, torch.tensor([tail, 1 - tail])).tolist()
    return Judged(
        kind=each.kind,
        name=each.name,
        samples=number,
        wide=first,
        narrow=second,
        low=low,
        high=high,
        verdict=_verdict(number, low, high, settings),
    )


def _verdict(number: int, low: float | None, high: float | None, settings: Gate) -> str:
    allowed = settings.max_drop / 100
    if low is None or high is None or number < settings.min_samples:
        return SMALL
    return FELL if low > allowed else KEPT if high <= allowed else DOUBTFUL


def _badness(each: Judged) -> tuple[bool, float]:
    return each.verdict != SMALL, -1.0 if each.drop is None else each.drop

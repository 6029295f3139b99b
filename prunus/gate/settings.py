"""Settings of the gate: the slices, their allowed drop, and its confidence."""

import dataclasses
import math
from pathlib import Path

from prunus.errors import RecipeError

KINDS = ("class", "condition", "size", "distance", "class in condition")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gate:
    """A comparison of the wide and the narrow network on the test split, before the narrow one is deployed.

    A slice fails if the whole confidence interval of its metric's drop lies above `max_drop`. A slice with fewer than
    `min_samples` samples is shown but not judged.

    Attributes:
        max_drop: percentage points.
        per: kinds of slices besides the whole split: class, condition, size, distance, "class in condition"; or one
            string with commas. Kinds that the data do not provide are left out.
        min_samples: least number of objects, images or labels in a slice that is judged.
        confidence: of the intervals, in (0, 1).
        resamples: number of bootstrap resamples of the images for the intervals (Efron 1979).
        tags: a CSV file with the images' conditions, which replaces those of the data: file,tag,tag,...
        gallery: number of images to keep, those on which the two networks disagree most.
        robust_images: number of images that are also evaluated with noise, blur and changed brightness; 0: none.
        stop: whether a failed slice stops the run before the export.
        seed: of the resampling.
    """

    max_drop: float = 0.5
    per: tuple[str, ...] = KINDS
    min_samples: int = 30
    confidence: float = 0.95
    resamples: int = 1000
    tags: Path | None = None
    gallery: int = 4
    robust_images: int = 0
    stop: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.per, str):
            object.__setattr__(self, "per", tuple(kind.strip() for kind in self.per.split(",")))
        if unknown := [kind for kind in self.per if kind not in KINDS]:
            raise RecipeError(f"gate.per names {', '.join(unknown)}; known: {', '.join(KINDS)}")
        if not 0 <= self.max_drop < math.inf or not 0 < self.confidence < 1:
            raise RecipeError(
                f"gate: max_drop is {self.max_drop} and must be a number of percentage points, zero or more; "
                f"confidence is {self.confidence} and must lie between 0 and 1"
            )
        if self.min_samples < 1 or self.resamples < 100 or self.gallery < 0 or self.robust_images < 0:
            raise RecipeError(
                f"gate: min_samples is {self.min_samples} and must be at least 1, resamples {self.resamples} at least "
                f"100, gallery {self.gallery} and robust_images {self.robust_images} zero or more"
            )

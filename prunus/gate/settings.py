"""Settings of the gate: which slices, how much each may fall, how sure that must be."""

import dataclasses
import math
from pathlib import Path

from prunus.errors import RecipeError

KINDS = ("class", "condition", "size", "distance", "class in condition")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gate:
    """A comparison of the wide and the narrow network on the test split, before the narrow one is deployed.

    A slice fails where its metric falls by more than `max_drop` beyond doubt: the whole interval of the drop lies above
    it. A slice of fewer than `min_samples` is shown, and not judged.

    Attributes:
        max_drop: percentage points.
        per: kinds of slices beside the whole: class, condition, size, distance, "class in condition"; or one text with
            commas between them. Those of which the data say nothing are left out.
        min_samples: objects, images or labels in a slice that is judged.
        confidence: of the intervals, in (0, 1).
        resamples: of the images, for the intervals (Efron 1979).
        tags: a CSV file of the images' conditions, in the place of those that the data name: file,tag,tag,...
        gallery: number of images kept on which the two networks disagree most.
        robust_images: images that are also shown with noise, blur and other brightness; 0: none.
        stop: whether a slice that fails stops the run before the export.
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
            raise RecipeError(f"gate.per names {', '.join(unknown)}; known are {', '.join(KINDS)}")
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

"""The built-in street scenes with both masks and boxes."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import final

from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.interface import Data
from prunus.data.multi_task import MultiTaskData
from prunus.data.street import StreetData
from prunus.data.street.boxes import StreetBoxesData
from prunus.data.street.conditions import CONDITIONS


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class StreetMultiTaskData(MultiTaskData):
    """Rendered street scenes for the sub-tasks "segmentation" (masks) and "detection" (boxes).

    The settings and the scenes are those of `StreetData` and `StreetBoxesData`.

    Raises:
        RecipeError: as for `StreetData`.
    """

    size: tuple[int, int] = (128, 256)  # (height, width) in pixels
    num_train: int = 480
    num_validation: int = 120
    num_test: int = 120
    seed: int = 0  # of the scenes, and of the augmentation
    conditions: tuple[str, ...] = CONDITIONS  # used in turn
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    cache: bool = True

    def __post_init__(self) -> None:
        self.by_task()

    def by_task(self) -> Mapping[str, Data]:
        """Return the scenes with masks and the same scenes with boxes."""
        return self._parts

    @functools.cached_property
    def _parts(self) -> dict[str, Data]:
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"segmentation": StreetData(**settings), "detection": StreetBoxesData(**settings)}

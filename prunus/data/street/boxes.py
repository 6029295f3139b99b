"""The built-in street scenes as a detection set: boxes around cars, pedestrians and signs."""

import dataclasses
from typing import ClassVar, final

import torch

from prunus.boxes import COLUMNS, EVERY, Objects
from prunus.data.annotations import BoxSource, Checker
from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.detection import DetectionData
from prunus.data.interface import SplitName
from prunus.data.source import PixelCache
from prunus.data.street import Scene, StreetData
from prunus.data.street.composition import MOST_THINGS
from prunus.data.street.conditions import CONDITIONS
from prunus.data.street.scene import Label

CLASSES = {Label.CAR: 0, Label.PEDESTRIAN: 1, Label.SIGN: 2}
SHORTEST = 4  # pixels of the shorter side; smaller objects are ignored regions


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class StreetBoxesData(DetectionData):
    """Rendered street scenes with boxes around the visible objects: three classes, five conditions.

    The settings and the scenes are those of `StreetData`.

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

    class_names: ClassVar[tuple[str, ...]] = ("car", "pedestrian", "sign")

    def __post_init__(self) -> None:
        self.scenes()

    def scenes(self) -> StreetData:
        """Return the data set with masks of the same scenes."""
        names = ("size", "num_train", "num_validation", "num_test", "seed", "conditions")
        return StreetData(**{name: getattr(self, name) for name in names})

    def source(self, split: SplitName, checker: Checker) -> BoxSource:
        """Return the scenes of `split`."""
        return _Scenes(self.scenes(), split)


class _Scenes:
    """The scenes of one split; the objects of rendered scenes are cached."""

    most = MOST_THINGS

    def __init__(self, data: StreetData, split: SplitName) -> None:
        self.data, self.split = data, split
        self._rows = PixelCache(len(self), self.most, 4 * len(COLUMNS))  # float32, as bytes

    def __len__(self) -> int:
        return self.data.num_scenes(self.split)

    def image(self, index: int) -> torch.Tensor:
        """Render the scene."""
        scene = self.data.scene(self.split, index)
        self._rows.get(index, lambda _: self._bytes(scene))
        return torch.from_numpy(scene.image)

    def image_size(self, index: int) -> tuple[int, int]:
        """Return the common (height, width) of the scenes."""
        return self.data.size

    def objects(self, index: int) -> Objects:
        """Return the objects of the scene."""
        stored = self._rows.get(index, lambda number: self._bytes(self.data.scene(self.split, number)))
        return Objects.from_rows(stored.view(torch.float32))

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the light and weather of the scene."""
        return (self.data.condition(self.split, index),)

    def _bytes(self, scene: Scene) -> torch.Tensor:
        return _objects(scene).rows(self.most).view(torch.uint8)


def _objects(scene: Scene) -> Objects:
    boxes, labels = torch.from_numpy(scene.boxes), torch.from_numpy(scene.labels)
    table = torch.full((max(Label) + 1,), EVERY)
    table[list(CLASSES)] = torch.tensor(list(CLASSES.values()))
    small = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) < SHORTEST if len(boxes) else torch.zeros(0, dtype=torch.bool)
    return Objects.of(boxes, table[labels], ignored=small)

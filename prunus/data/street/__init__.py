"""Procedural street scenes, the built-in data set: settings, and rendering by (seed, index) at any resolution."""

import dataclasses
from collections.abc import Callable
from random import Random
from typing import ClassVar, final

import numpy as np
import torch

from prunus.data.augmentation import DEFAULT_AUGMENTATION, Augmentation
from prunus.data.interface import SplitName
from prunus.data.segmentation import SegmentationData, check_size
from prunus.data.street.actors import draw_car, draw_pedestrian
from prunus.data.street.canvas import SCALE, Canvas
from prunus.data.street.composition import compose
from prunus.data.street.conditions import CONDITIONS, Look, look_of
from prunus.data.street.ground import draw_ground
from prunus.data.street.light import develop, paint_sky
from prunus.data.street.scene import NEAR, Label, Street, Thing
from prunus.data.street.upright import draw_pole, draw_sign, draw_tree
from prunus.data.street.walls import draw_building, draw_hedge
from prunus.errors import RecipeError

# Each split has its own indices, so that a larger training set leaves the other splits as they are.
FIRST_INDEX: dict[SplitName, int] = {"train": 0, "validation": 1 << 30, "test": 1 << 31}
SMALLEST_OBJECT = 8  # pixels; an object with fewer visible pixels has no box


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """One rendered scene with its ground truth."""

    image: np.ndarray  # uint8 [3, H, W], RGB
    mask: np.ndarray  # uint8 [H, W], Label
    instances: np.ndarray  # uint8 [H, W]; 0: none, i + 1: the object of boxes[i]
    boxes: np.ndarray  # float32 [N, 4], (x1, y1, x2, y2) around the visible pixels, x2 and y2 exclusive
    labels: np.ndarray  # int64 [N], Label.CAR, Label.PEDESTRIAN or Label.SIGN
    condition: str  # one of CONDITIONS


def render(seed: int, index: int, size: tuple[int, int], conditions: tuple[str, ...] = CONDITIONS) -> Scene:
    """Return scene number `index` of the infinite series `seed`, at `size` = (height, width) pixels."""
    height, width = size
    random = Random(f"{seed} {index}")  # a string: neighbouring numbers give unrelated scenes
    condition = conditions[index % len(conditions)]  # in turn, so that any stretch of the series has them all
    look = look_of(condition, random)
    canvas = Canvas(width, height, lit=look.lit_share > 0)
    street = compose(random, canvas.width, canvas.height)
    horizon = street.camera.horizon / SCALE
    canvas.begin(Label.SKY)
    canvas.backdrop(paint_sky(look, random, width, height, horizon))
    draw_ground(canvas, street, random)
    _draw_things(canvas, street, look)
    picture, ids, nearest = canvas.finished()
    classes = np.asarray(canvas.labels, np.uint8)
    # Light and fog depend on the nearest object in a pixel, so that an edge against the sky leaves no hole in the fog.
    depth = _depth(canvas, street, nearest)
    image = develop(picture, classes[nearest], depth, canvas.lights(), look, random, horizon)
    instances, boxes, labels = _objects(canvas, ids)
    return Scene(image=image, mask=classes[ids], instances=instances, boxes=boxes, labels=labels, condition=condition)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class StreetData(SegmentationData):
    """Rendered street scenes: eleven classes, five conditions, no files.

    Sample i of a split is `scene(split, i)`, which also holds boxes, instances and the condition.

    Raises:
        RecipeError: an invalid size (see `check_size`), a split without samples, or an unknown condition.
    """

    size: tuple[int, int] = (128, 256)  # (height, width) in pixels
    num_train: int = 480
    num_validation: int = 120
    num_test: int = 120
    seed: int = 0  # of the scenes, and of the augmentation
    conditions: tuple[str, ...] = CONDITIONS  # used in turn; a repeated condition occurs more often
    augmentation: Augmentation = DEFAULT_AUGMENTATION
    cache: bool = True  # keep rendered scenes in memory: 131 kB per scene at 256 x 128

    class_names: ClassVar[tuple[str, ...]] = tuple(label.name.lower().replace("_", " ") for label in Label)
    palette: ClassVar[tuple[tuple[int, int, int], ...]] = (
        (128, 64, 128), (255, 255, 255), (244, 35, 232), (152, 251, 152), (70, 70, 70), (153, 153, 153),
        (220, 220, 0), (107, 142, 35), (70, 130, 180), (220, 20, 60), (0, 0, 142),
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_size(self.size)
        for name in ("num_train", "num_validation", "num_test"):
            if getattr(self, name) < 1:
                raise RecipeError(f"data.{name} is a number of scenes, at least 1, not {getattr(self, name)}")
        unknown = [condition for condition in self.conditions if condition not in CONDITIONS]
        if unknown or not self.conditions:
            raise RecipeError(f"data.conditions: {unknown or 'none given'}; known: {', '.join(CONDITIONS)}")

    def source(self, split: SplitName) -> "StreetSource":
        """Return the scenes of `split`."""
        return StreetSource(self, split)

    def num_scenes(self, split: SplitName) -> int:
        """Return the number of scenes of `split`."""
        return {"train": self.num_train, "validation": self.num_validation, "test": self.num_test}[split]

    def scene(self, split: SplitName, index: int) -> Scene:
        """Render sample `index` of `split` with its boxes, instances and condition."""
        return render(self.seed, FIRST_INDEX[split] + index, self.size, self.conditions)

    def condition(self, split: SplitName, index: int) -> str:
        """Return the light and weather of a sample, without rendering it."""
        return self.conditions[(FIRST_INDEX[split] + index) % len(self.conditions)]


class StreetSource:
    """The scenes of one split as raw samples."""

    def __init__(self, data: StreetData, split: SplitName) -> None:
        self.data, self.split = data, split

    def __len__(self) -> int:
        return self.data.num_scenes(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        scene = self.data.scene(self.split, index)
        return torch.from_numpy(scene.image), torch.from_numpy(scene.mask)

    def mask(self, index: int) -> torch.Tensor:
        """Return the mask alone."""
        return self[index][1]

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the light and weather of the scene."""
        return (self.data.condition(self.split, index),)


def _draw_things(canvas: Canvas, street: Street, look: Look) -> None:
    camera, sun = street.camera, look.sun
    draw: dict[str, Callable[[Thing], None]] = {
        "building": lambda thing: draw_building(canvas, camera, thing, sun, look.lit_share),
        "hedge": lambda thing: draw_hedge(canvas, camera, thing),
        "tree": lambda thing: draw_tree(canvas, camera, thing, sun),
        "pole": lambda thing: draw_pole(canvas, camera, thing),
        "sign": lambda thing: draw_sign(canvas, camera, thing),
        "car": lambda thing: draw_car(canvas, camera, thing),
        "pedestrian": lambda thing: draw_pedestrian(canvas, camera, thing),
    }
    for thing in street.things:
        if _in_view(canvas, street, thing):
            draw[thing.kind](thing)


def _in_view(canvas: Canvas, street: Street, thing: Thing) -> bool:
    """Whether any part of a thing can lie between the left and right edges of the picture."""
    camera, columns = street.camera, []
    for z in (thing.z, thing.z + thing.length) if thing.length else (thing.z,):
        column = camera.project(thing.x, 0, z)[0]
        reach = max(thing.width, 1.8) * camera.scale(z)  # 1.8: the arm of a lamp post
        columns += [column - reach, column + reach]
    return max(columns) > 0 and min(columns) < canvas.width


def _depth(canvas: Canvas, street: Street, ids: np.ndarray) -> np.ndarray:
    """Return the distance to each pixel in metres: that of its thing, or on the ground that of its row."""
    camera = street.camera
    rows = (np.arange(ids.shape[0], dtype=np.float32) + 0.5) * SCALE - camera.horizon
    ground = (camera.focal * camera.height / rows.clip(0.5)).clip(NEAR, 2000)
    depths = np.asarray(canvas.depths, np.float32)[ids]
    return np.where(depths > 0, depths, ground[:, None])


def _objects(canvas: Canvas, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return instances, boxes and labels of the objects with at least `SMALLEST_OBJECT` visible pixels."""
    height, width = ids.shape
    sizes = np.bincount(ids.ravel(), minlength=len(canvas.labels))
    shown = [number for number in canvas.objects if sizes[number] >= SMALLEST_OBJECT][:255]
    table = np.zeros(len(canvas.labels), np.uint8)
    table[shown] = np.arange(1, len(shown) + 1)
    instances = table[ids]
    boxes = np.empty((len(shown), 4), np.float32)
    # A box spans the first to the last column and row with a pixel of the object.
    pixels = np.flatnonzero(instances)
    owners, rows, columns = instances.ravel()[pixels].astype(np.int64) - 1, pixels // width, pixels % width
    for start, places, extent in ((0, columns, width), (1, rows, height)):
        occupied = np.zeros((len(shown), extent), bool)
        occupied[owners, places] = True
        boxes[:, start] = occupied.argmax(axis=1)
        boxes[:, start + 2] = extent - occupied[:, ::-1].argmax(axis=1)
    return instances, boxes, np.asarray([canvas.labels[number] for number in shown], np.int64)

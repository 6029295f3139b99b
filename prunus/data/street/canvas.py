"""The canvas of a street scene: colours and ids of things in one image, with separate images for lights and shadows.

Each thing has its own id, which every stroke writes into the fourth channel; tables map an id to its class, depth and
instance. The class mask, the boxes and the depth for fog and lamps all follow from the ids. The canvas has twice the
picture's resolution; colours are averaged down, which smooths edges, and ids are sampled.
"""

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from prunus.data.street.scene import Colour

SCALE = 2  # canvas pixels per picture pixel, in each direction

Point = tuple[float, float]


class Canvas:
    """The images (colour and id, light, shadow) of one scene during painting.

    Args:
        width: of the finished picture, in pixels.
        height: of the finished picture, in pixels.
        lit: whether lights are painted; otherwise there is no light image.
    """

    def __init__(self, width: int, height: int, *, lit: bool) -> None:
        self.width, self.height = width * SCALE, height * SCALE
        self._colours = Image.new("RGBA", (self.width, self.height))
        self._light = Image.new("RGB", (self.width, self.height)) if lit else None
        self._shadow = Image.new("L", (width, height), 255)
        self._brush = ImageDraw.Draw(self._colours)
        self._light_brush = ImageDraw.Draw(self._light) if self._light else None
        self._shadow_brush = ImageDraw.Draw(self._shadow)
        self.labels: list[int] = []  # class of each id
        self.depths: list[float] = []  # metres; 0: on the ground, where the distance follows from the row
        self.objects: list[int] = []  # ids that are objects with a box
        self._id = 0

    def begin(self, label: int, depth: float = 0.0, *, is_object: bool = False) -> None:
        """Start a new id for the following strokes; there are at most 256."""
        self._id = len(self.labels)
        self.labels.append(label)
        self.depths.append(depth)
        if is_object:
            self.objects.append(self._id)

    def backdrop(self, rows: np.ndarray) -> None:
        """Paste picture rows, uint8 [R, W, 3], at the top."""
        colours = Image.fromarray(rows).resize((self.width, len(rows) * SCALE), Image.Resampling.NEAREST)
        colours.putalpha(self._id)
        self._colours.paste(colours)

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        """Paint a silhouette; it hides the lights behind it."""
        self._brush.polygon(points, self._ink(colour))
        if self._light_brush:
            self._light_brush.polygon(points, 0)

    def ellipse(self, centre: Point, radii: Point, colour: Colour) -> None:
        """Paint a round silhouette."""
        box = _box(centre, radii)
        self._brush.ellipse(box, self._ink(colour))
        if self._light_brush:
            self._light_brush.ellipse(box, 0)

    def detail(self, points: Sequence[Point], colour: Colour) -> None:
        """Paint within a silhouette, without hiding lights."""
        self._brush.polygon(points, self._ink(colour))

    def spot(self, centre: Point, radii: Point, colour: Colour) -> None:
        """Paint a round detail."""
        self._brush.ellipse(_box(centre, radii), self._ink(colour))

    def light(self, points: Sequence[Point], colour: Colour) -> None:
        """Make a detail shine, if the scene has lights."""
        if self._light_brush:
            self._light_brush.polygon(points, self._ink(colour)[:3])

    def lamp(self, centre: Point, radius: float, colour: Colour) -> None:
        """Make a round detail shine, if the scene has lights."""
        if self._light_brush:
            self._light_brush.ellipse(_box(centre, (radius, radius)), self._ink(colour)[:3])

    def shadow(self, points: Sequence[Point], share: float) -> None:
        """Darken the ground within `points` to `share` of its brightness; standing things stay as they are."""
        self._shadow_brush.polygon([(x / SCALE, y / SCALE) for x, y in points], int(255 * share))

    def finished(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the picture, shadows included, with the ids of its pixels.

        Returns:
            The picture, float32 planes [3, H, W]; the id at the middle of each pixel, uint8 [H, W]; the highest id
            within each pixel, uint8 [H, W], which was painted last and is nearest.
        """
        pixels = np.asarray(self._colours.convert("RGB").reduce(SCALE))
        picture = pixels.transpose(2, 0, 1).astype(np.float32)
        fine = np.asarray(self._colours.getchannel("A"))
        quarters = [fine[row::SCALE, column::SCALE] for row in range(SCALE) for column in range(SCALE)]
        ids, nearest = quarters[-1], functools.reduce(np.maximum, quarters)
        shadow = np.asarray(self._shadow).astype(np.float32) / 255
        shadow[np.asarray(self.depths)[nearest] > 0] = 1.0
        picture *= shadow
        return picture, ids, nearest

    def lights(self) -> Image.Image | None:
        """Return the lights, RGB at the picture's size; None if the scene has none."""
        return self._light.reduce(SCALE) if self._light else None

    def _ink(self, colour: Colour) -> tuple[int, int, int, int]:
        red, green, blue = colour
        return (
            0 if red < 0 else 255 if red > 255 else int(red),
            0 if green < 0 else 255 if green > 255 else int(green),
            0 if blue < 0 else 255 if blue > 255 else int(blue),
            self._id,
        )


def shade(colour: Colour, factor: float) -> Colour:
    """Return a colour darkened (below 1) or lightened (above 1)."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _box(centre: Point, radii: Point) -> tuple[float, float, float, float]:
    return centre[0] - radii[0], centre[1] - radii[1], centre[0] + radii[0], centre[1] + radii[1]

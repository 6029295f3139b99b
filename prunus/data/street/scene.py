"""The model of a street scene: its things, in metres, and the camera.

Coordinates: x to the right of the road's centre line, y up from the ground, z ahead of the camera. The road
bends, so x is measured from the centre line at that z.
"""

import dataclasses
import enum
from typing import Literal

NEAR, FAR = 0.4, 140.0  # metres; things are cut at NEAR, and FAR is where the street ends
LANE = 3.3  # metres, width of a lane

Colour = tuple[float, float, float]
Style = Literal["city", "suburb", "park"]
Kind = Literal["building", "tree", "pole", "sign", "car", "pedestrian", "hedge"]


class Label(enum.IntEnum):
    """The classes of a street scene, by their number in a mask."""

    ROAD = 0
    LANE_MARK = 1
    PAVEMENT = 2
    GRASS = 3
    BUILDING = 4
    POLE = 5
    SIGN = 6
    TREE = 7
    SKY = 8
    PEDESTRIAN = 9
    CAR = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera above the road that looks along it."""

    focal: float  # pixels
    centre: float  # column of the vanishing point of a straight road
    horizon: float  # row
    height: float  # metres above the ground
    offset: float  # metres right of the road's centre line
    curvature: float  # 1/metre; positive bends to the right

    def project(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Return (column, row) of a point; z is cut at the near plane."""
        if z < NEAR:
            z = NEAR
        scale = self.focal / z
        bend = 0.5 * self.curvature * z * z
        return self.centre + (x - self.offset + bend) * scale, self.horizon + (self.height - y) * scale

    def upright(
        self, foot: tuple[tuple[float, float], tuple[float, float]], low: float, high: float
    ) -> list[tuple[float, float]]:
        """Return the outline of an upright rectangle over the ground line `foot`, from (x, z) to (x, z)."""
        (x0, z0), (x1, z1) = foot
        first, bottom = self.project(x0, low, z0)
        second, other = (self.project(x1, low, z1)) if z1 != z0 else (first + (x1 - x0) * self.scale(z0), bottom)
        rise, other_rise = (high - low) * self.scale(z0), (high - low) * self.scale(z1)
        return [(first, bottom), (second, other), (second, other - other_rise), (first, bottom - rise)]

    def scale(self, z: float) -> float:
        """Return the pixels per metre at z."""
        return self.focal / (z if z > NEAR else NEAR)


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """Something that stands on the ground; `length` runs along z from z to z + length."""

    kind: Kind
    x: float  # of its centre; for a building or a hedge, of the side that faces the road
    z: float
    width: float
    height: float
    length: float
    colour: Colour
    variant: int  # selects shapes and details
    side: int  # -1 left of the road, 1 right; for a car -1 oncoming, 1 in the camera's direction


@dataclasses.dataclass(frozen=True, slots=True)
class Verge:
    """One side of the street, from the kerb outwards."""

    pavement: float  # metres
    grass_inside: float  # between kerb and pavement
    grass_outside: bool  # beyond the pavement: grass, else paving
    style: Style


@dataclasses.dataclass(frozen=True, slots=True)
class Street:
    """A composed scene; `things` are sorted from far to near."""

    camera: Camera
    lanes: tuple[int, int]  # left and right of the centre line
    parking: tuple[float, float]  # metres of parking lane, left and right
    verges: tuple[Verge, Verge]
    crossing: float | None  # z of a zebra crossing
    things: tuple[Thing, ...]

    def kerb(self, side: int) -> float:
        """Return the signed x of the kerb on `side` (-1, 1)."""
        index = (side + 1) // 2
        return side * (self.lanes[index] * LANE + self.parking[index])

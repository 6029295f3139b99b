"""Drawing trees, lamp posts and traffic signs."""

import math
from random import Random

from prunus.data.street.canvas import Canvas, Point, shade
from prunus.data.street.scene import Camera, Colour, Label, Thing

LAMPLIGHT: Colour = (255, 214, 150)
RED, BLUE, WHITE, YELLOW = (196, 30, 34), (34, 70, 170), (236, 236, 232), (240, 196, 40)


def _crown(random: Random) -> tuple[tuple[float, float, float, float], ...]:
    """Return the leaf blobs (right, up, radius, shade) of a crown of unit radius; shaded blobs come first."""
    blobs = [(0.0, 0.0, 0.72, 0.8)]
    for number in range(7):
        angle, reach = 2 * math.pi * number / 7 + random.uniform(-0.3, 0.3), random.uniform(0.45, 0.7)
        up = math.sin(angle) * reach
        blobs.append((math.cos(angle) * reach, up, random.uniform(0.3, 0.46), 0.92 + 0.22 * up))
    for _ in range(5):
        blobs.append((random.uniform(-0.5, 0.5), random.uniform(-0.1, 0.6), random.uniform(0.14, 0.28), 1.2))
    return tuple(blobs)


CROWNS = tuple(_crown(Random(number)) for number in range(12))


def draw_tree(canvas: Canvas, camera: Camera, thing: Thing, sun: float) -> None:
    """Paint a trunk and a crown: a broad-leaved tree, or in one case of six a conifer."""
    canvas.begin(Label.TREE, thing.z)
    column, foot = camera.project(thing.x, 0, thing.z)
    scale = camera.focal / thing.z
    trunk, top = max(0.11 * scale, 1.0), foot - thing.height * scale
    bark = (78, 62, 48)
    canvas.polygon(_box(column - trunk, foot - 0.5 * thing.height * scale, column + trunk, foot), bark)
    canvas.detail(_box(column, foot - 0.45 * thing.height * scale, column + trunk, foot), shade(bark, 1.0 + 0.3 * sun))
    if thing.variant % 6 == 0:
        _draw_conifer(canvas, column, foot, top, thing, scale)
        return
    wide, high = thing.width * 0.62 * scale, thing.height * 0.4 * scale
    middle = top + high
    if wide < 5:
        canvas.ellipse((column, middle), (wide, high), thing.colour)
        return
    for right, up, radius, tone in CROWNS[thing.variant % len(CROWNS)][: None if wide > 16 else 6]:
        centre = (column + (right + (0.12 * sun if tone > 1.1 else 0.0)) * wide, middle - up * high)
        paint = canvas.ellipse if tone < 1.15 else canvas.spot
        paint(centre, (radius * wide, radius * high), shade(thing.colour, tone))


def _draw_conifer(canvas: Canvas, column: float, foot: float, top: float, thing: Thing, scale: float) -> None:
    half, base = thing.width * 0.45 * scale, foot - 0.12 * thing.height * scale
    green = (38, 66, 44)
    for level in range(4):
        low = base + (top - base) * level / 4.6
        high, reach = low + (top - base) * 0.4, half * (1 - 0.19 * level)
        canvas.polygon(
            [(column - reach, low), (column + reach, low), (column, max(high, top))], shade(green, 0.85 + 0.1 * level)
        )
        canvas.detail([(column, low), (column + reach, low), (column, max(high, top))], shade(green, 1.0 + 0.1 * level))


def draw_pole(canvas: Canvas, camera: Camera, thing: Thing) -> None:
    """Paint a street lamp: post, arm towards the road, and the lamp."""
    canvas.begin(Label.POLE, thing.z)
    column, foot = camera.project(thing.x, 0, thing.z)
    scale = camera.focal / thing.z
    half = max(thing.width / 2 * scale, 1.0)
    top = foot - thing.height * scale
    arm = column - thing.side * 1.5 * scale
    canvas.polygon(_box(column - half, top, column + half, foot), thing.colour)
    canvas.detail(_box(column, top, column + half, foot), shade(thing.colour, 0.75))
    thick = max(0.05 * scale, 1.0)
    if thing.variant & 1:
        lift = 0.35 * scale
        canvas.polygon(
            [(column, top), (arm, top - lift), (arm, top - lift + 2 * thick), (column, top + 2 * thick)], thing.colour
        )
        lamp = (arm, top - lift + 2 * thick)
    else:
        lamp = (column, top)
    head = max(0.22 * scale, 1.5)
    canvas.ellipse(lamp, (head * 1.3, head * 0.7), shade(thing.colour, 0.85))
    canvas.lamp(lamp, head, LAMPLIGHT)


def draw_sign(canvas: Canvas, camera: Camera, thing: Thing) -> None:
    """Paint a traffic sign; its post has the class POLE, its plate the class SIGN."""
    column, foot = camera.project(thing.x, 0, thing.z)
    scale = camera.focal / thing.z
    radius, half = max(thing.width / 2 * scale, 2.0), max(0.04 * scale, 1.0)
    middle = foot - (thing.height - thing.width / 2) * scale
    canvas.begin(Label.POLE, thing.z)
    canvas.polygon(_box(column - half, middle, column + half, foot), thing.colour)
    canvas.begin(Label.SIGN, thing.z, is_object=True)
    centre = (column, middle)
    shape = thing.variant % 6
    if shape == 0:  # a speed limit: red ring, white disc, digits
        canvas.ellipse(centre, (radius, radius), RED)
        canvas.spot(centre, (radius * 0.72, radius * 0.72), WHITE)
        for right in (-0.25, 0.25):
            bar = _box(
                column + (right - 0.14) * radius,
                middle - 0.35 * radius,
                column + (right + 0.14) * radius,
                middle + 0.35 * radius,
            )
            canvas.detail(bar, (30, 30, 30))
        return
    corners, turn, outer, inner = (
        (4, math.pi / 4, BLUE, WHITE),
        (3, -math.pi / 2, RED, WHITE),
        (8, math.pi / 8, RED, RED),
        (4, 0.0, WHITE, YELLOW),
        (4, math.pi / 4, BLUE, BLUE),
    )[shape - 1]
    canvas.polygon(_polygon(centre, radius * 1.1, corners, turn), outer)
    canvas.detail(_polygon(centre, radius * 0.65, corners, turn), inner)
    if shape == 3:
        canvas.detail(
            _box(column - 0.7 * radius, middle - 0.2 * radius, column + 0.7 * radius, middle + 0.2 * radius), WHITE
        )


def _polygon(centre: Point, radius: float, corners: int, turn: float) -> list[Point]:
    angles = (turn + 2 * math.pi * corner / corners for corner in range(corners))
    return [(centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)) for angle in angles]


def _box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]

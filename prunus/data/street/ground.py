"""Drawing the ground (road, markings, pavement, grass) and the horizon."""

from collections.abc import Sequence
from random import Random

from prunus.data.street.canvas import Canvas, Point, shade
from prunus.data.street.scene import FAR, LANE, NEAR, Colour, Label, Street

DEPTHS = tuple(NEAR * (FAR / NEAR) ** (step / 11) for step in range(12))  # metres, corners of a bent strip
PAINT: Colour = (214, 214, 206)
MARK_REACH = 75.0  # metres; beyond it markings are thinner than a pixel


def draw_ground(canvas: Canvas, street: Street, random: Random) -> None:
    """Paint the background, then the ground from the outside in."""
    _draw_distance(canvas, street, random)
    asphalt = random.uniform(78, 112)
    paving = random.choice(((150, 146, 140), (162, 150, 140), (134, 134, 136)))
    for side in (-1, 1):
        _draw_side(canvas, street, side, random, paving)
    canvas.begin(Label.ROAD)
    canvas.polygon(strip(street, street.kerb(-1), street.kerb(1)), (asphalt, asphalt, asphalt + 4))
    for _ in range(random.randrange(5)):  # patches of repaired asphalt
        x, z = random.uniform(street.kerb(-1), street.kerb(1) - 1.5), random.uniform(3, 25)
        patch = strip(street, x, x + random.uniform(0.6, 1.6), (z, z + random.uniform(1, 6)))
        canvas.detail(patch, shade((asphalt, asphalt, asphalt), random.uniform(0.82, 1.1)))
    _draw_marks(canvas, street, random)


def strip(street: Street, left: float, right: float, depths: Sequence[float] = DEPTHS) -> list[Point]:
    """Return the outline of the ground between x = `left` and `right` along the street."""
    project = street.camera.project
    # A straight strip needs only its ends.
    depths = tuple(depths) if street.camera.curvature else (depths[0], depths[-1])
    return [project(left, 0, z) for z in depths] + [project(right, 0, z) for z in reversed(depths)]


def _draw_distance(canvas: Canvas, street: Street, random: Random) -> None:
    """Paint a ground that reaches the horizon, with a line of trees and roofs on it."""
    horizon, width = street.camera.horizon, canvas.width
    canvas.begin(Label.GRASS)
    ground = [(0.0, horizon), (width, horizon), (width, canvas.height), (0.0, canvas.height)]
    canvas.polygon(ground, (106, 116, 78))
    unit = street.camera.focal / FAR
    canvas.begin(Label.TREE, FAR * 0.9)
    columns = [width * step / 24 for step in range(25)]
    tops = [(column, horizon - unit * random.uniform(3, 9)) for column in columns]
    canvas.polygon([(0.0, horizon + 1.0), *tops, (width, horizon + 1.0)], (72, 90, 62))
    for _ in range(random.randrange(2, 9)):
        canvas.begin(Label.BUILDING, FAR * 0.8)
        left, wide, high = random.uniform(0, width), unit * random.uniform(8, 26), unit * random.uniform(6, 26)
        top, grey = horizon - high, random.uniform(110, 165)
        box = [(left, horizon + 1.0), (left, top), (left + wide, top), (left + wide, horizon + 1.0)]
        canvas.polygon(box, (grey, grey * 0.97, grey * 0.94))


def _draw_side(canvas: Canvas, street: Street, side: int, random: Random, paving: Colour) -> None:
    verge, kerb = street.verges[(side + 1) // 2], street.kerb(side)
    grass = (random.uniform(84, 112), random.uniform(112, 134), random.uniform(56, 74))
    inside = kerb + side * verge.grass_inside
    outside = inside + side * verge.pavement
    canvas.begin(Label.GRASS if verge.grass_outside else Label.PAVEMENT)
    canvas.polygon(strip(street, outside, side * 90), grass if verge.grass_outside else shade(paving, 0.92))
    canvas.begin(Label.PAVEMENT)
    canvas.polygon(strip(street, kerb, outside), paving)
    joint = shade(paving, 0.86)
    for number in range(9):  # joints between slabs
        z = 2.5 + number * 1.5
        canvas.detail(strip(street, inside, outside, (z, z + 0.05 + 0.004 * z)), joint)
    if verge.grass_inside:
        canvas.begin(Label.GRASS)
        canvas.polygon(strip(street, kerb + side * 0.2, inside), grass)
        canvas.begin(Label.PAVEMENT)
    canvas.polygon(strip(street, kerb, kerb + side * 0.2), shade(paving, 1.16))  # the kerb stone


def _draw_marks(canvas: Canvas, street: Street, random: Random) -> None:
    canvas.begin(Label.LANE_MARK)
    worn = shade(PAINT, random.uniform(0.82, 1.05))
    left, right = (
        -lanes * LANE if side < 0 else lanes * LANE for side, lanes in zip((-1, 1), street.lanes, strict=True)
    )
    solid = [depth for depth in DEPTHS if depth < MARK_REACH]
    if random.random() < 0.7:
        for x in (left + 0.2, right - 0.2):
            canvas.polygon(strip(street, x - 0.07, x + 0.07, solid), worn)
    if random.random() < 0.3:  # no overtaking: the centre line is solid
        canvas.polygon(strip(street, -0.08, 0.08, solid), worn)
        dashed = []
    else:
        dashed = [0.0]
    dashed += [side * LANE for side, lanes in zip((-1, 1), street.lanes, strict=True) if lanes == 2]
    start = random.uniform(0, 6)
    for x in dashed:
        z = start
        while z < MARK_REACH:
            canvas.polygon(strip(street, x - 0.08, x + 0.08, (z, z + 1.5, z + 3.0)), worn)
            z += 9.0
    if street.crossing is not None:
        x = street.kerb(-1) + 0.4
        while x < street.kerb(1) - 0.5:
            canvas.polygon(strip(street, x, x + 0.5, (street.crossing, street.crossing + 3.0)), worn)
            x += 1.0

"""The composition of a street scene: its things and their positions, drawn from one `random.Random`."""

import dataclasses
from random import Random

from prunus.data.street.scene import FAR, LANE, NEAR, Camera, Colour, Street, Style, Thing, Verge

MOST_THINGS = 200  # nearest things that are kept; the canvas has 256 ids
HEDGE = 3.0  # metres, length of a piece of hedge; short, so that sorting by distance holds for its neighbours


def compose(random: Random, width: int, height: int) -> Street:
    """Return a street for a picture of `width` x `height` pixels."""
    lanes = (random.choice((1, 1, 2)), random.choice((1, 1, 2)))
    parking = tuple(random.choice((0.0, 2.3)) for _ in range(2))
    verges = (_verge(random), _verge(random))
    camera = Camera(
        focal=width * random.uniform(0.62, 0.85),
        centre=width * random.gauss(0.5, 0.07),
        horizon=height * random.uniform(0.4, 0.52),
        height=random.uniform(1.3, 1.9),
        offset=LANE * (random.randrange(lanes[1]) + 0.5) + random.uniform(-0.4, 0.4),
        curvature=random.choice((0.0, random.gauss(0, 0.0022))),
    )
    street = Street(
        camera=camera,
        lanes=lanes,
        parking=(parking[0], parking[1]),
        verges=verges,
        crossing=random.uniform(9, 28) if random.random() < 0.2 else None,
        things=(),
    )
    things = _cars(random, street)
    for side in (-1, 1):
        things += _side(random, street, side)
    things.sort(key=_paint_key)
    return dataclasses.replace(street, things=tuple(things[-MOST_THINGS:]))


def _paint_key(thing: Thing) -> float:
    """Return the sort key for painting from far to near, so that near things hide far ones.

    A house is the outermost thing on its side, so it hides only things beyond its far end; it is painted `HEDGE`
    metres earlier still, before the hedge in front of it.
    """
    return -(thing.z + thing.length + HEDGE) if thing.kind == "building" else -thing.z


def _verge(random: Random) -> Verge:
    style = random.choice(STYLES)
    return Verge(
        pavement=random.uniform(1.8, 4.2),
        grass_inside=random.choice((0.0, 0.0, random.uniform(0.8, 2.0))),
        grass_outside=style != "city",
        style=style,
    )


def _side(random: Random, street: Street, side: int) -> list[Thing]:
    """Return the things beyond the kerb of one side."""
    verge = street.verges[(side + 1) // 2]
    kerb = street.kerb(side)
    edge = kerb + side * (verge.grass_inside + verge.pavement)
    things: list[Thing] = []
    if verge.style == "city":
        things += _houses(random, edge, side, (6.0, 20.0), (9.0, 24.0), gap=0.12)
        if random.random() < 0.5:
            things += _trees(random, kerb + side * max(verge.grass_inside, 1.0) * 0.5, side, random.uniform(9, 20))
    elif verge.style == "suburb":
        things += _houses(random, edge + side * random.uniform(2, 6), side, (3.2, 7.0), (8.0, 14.0), gap=0.8)
        things += _trees(random, edge + side * random.uniform(1.0, 2.0), side, random.uniform(8, 16))
        if random.random() < 0.6:
            things += _hedges(random, edge + side * 0.4, side)
    else:
        things += _trees(random, edge + side * 2.5, side, random.uniform(4, 8))
        things += _trees(random, edge + side * 8.0, side, 7.0)
    things += _street_furniture(random, kerb + side * 0.5, side)
    return things + _pedestrians(random, kerb + side * verge.grass_inside, side * verge.pavement, side)


def _houses(
    random: Random, x: float, side: int, heights: tuple[float, float], lengths: tuple[float, float], gap: float
) -> list[Thing]:
    things = []
    z = random.uniform(-8, 2)
    while z < FAR * 0.8:
        length = random.uniform(*lengths)
        if z + length > NEAR + 1:
            height, setback = random.uniform(*heights), side * random.choice((0.0, 0.0, random.uniform(0, 1.5)))
            colour = random.choice(WALLS)
            variant = random.randrange(1 << 16)
            things.append(
                Thing("building", x + setback, z, random.uniform(8, 12), height, length, colour, variant, side)
            )
        z += length + (random.uniform(2, 9) if random.random() < gap else 0.0)
    return things


def _trees(random: Random, x: float, side: int, spacing: float) -> list[Thing]:
    things = []
    season = random.choice(LEAVES)
    z = random.uniform(3, 3 + spacing)
    while z < FAR * 0.7:
        height = random.uniform(4.0, 9.5)
        colour = _vary(random, season, 14)
        at = x + random.uniform(-0.4, 0.9) * side
        things.append(
            Thing(
                "tree", at, z, height * random.uniform(0.4, 0.7), height, 0.0, colour, random.randrange(1 << 16), side
            )
        )
        z += spacing * random.uniform(0.7, 1.5) + z * 0.06
    return things


def _hedges(random: Random, x: float, side: int) -> list[Thing]:
    height, colour = random.uniform(0.7, 1.6), _vary(random, (52, 82, 40), 12)
    starts = (2 + HEDGE * number for number in range(12))
    return [Thing("hedge", x, z, 0.7, height, HEDGE, colour, 0, side) for z in starts if random.random() < 0.8]


def _street_furniture(random: Random, x: float, side: int) -> list[Thing]:
    """Return evenly spaced lamps, and signs."""
    things = []
    if random.random() < 0.75:
        spacing, height, start = random.uniform(16, 30), random.uniform(5.5, 8), random.uniform(4, 18)
        variant, colour = random.randrange(4), _vary(random, (104, 106, 108), 20)
        for number in range(int((80 - start) / spacing) + 1):
            things.append(Thing("pole", x, start + number * spacing, 0.16, height, 0.0, colour, variant, side))
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        z, height, variant = random.uniform(5, 38), random.uniform(2.3, 3.2), random.randrange(1 << 16)
        things.append(Thing("sign", x + side * 0.2, z, 0.75, height, 0.0, (150, 152, 154), variant, side))
    return things


def _pedestrians(random: Random, x: float, reach: float, side: int) -> list[Thing]:
    things = []
    for _ in range(random.choice((0, 1, 2, 2, 3, 4, 6))):
        z = 4 + 40 * random.random() ** 1.5
        at = x + reach * random.uniform(0.1, 0.9)
        if random.random() < 0.05:
            at = x - side * random.uniform(0.5, 3.0)  # on the road
        height = random.uniform(1.5, 1.92)
        colour = random.choice(CLOTHES)
        things.append(Thing("pedestrian", at, z, height * 0.3, height, 0.0, colour, random.randrange(1 << 16), side))
    return things


def _cars(random: Random, street: Street) -> list[Thing]:
    """Return the traffic in each lane, and parked cars."""
    things: list[Thing] = []
    for direction, lanes in zip((-1, 1), street.lanes, strict=True):
        for lane in range(lanes):
            x = direction * LANE * (lane + 0.5)
            ours = direction == 1 and abs(x - street.camera.offset) < LANE / 2
            z = random.uniform(9, 30) if ours else random.uniform(4, 30)
            while z < 70:
                things.append(_car(random, x + random.uniform(-0.3, 0.3), z, direction))
                z += random.uniform(9, 45)
        if street.parking[(direction + 1) // 2]:
            x, z = street.kerb(direction) - direction * 1.15, random.uniform(3, 12)
            while z < 48:
                if random.random() < 0.6:
                    things.append(_car(random, x, z, direction))
                z += random.uniform(5.6, 7.5)
    return things


def _car(random: Random, x: float, z: float, direction: int) -> Thing:
    kind = random.random()
    height, length = (1.45, 4.2) if kind < 0.6 else (1.72, 4.6) if kind < 0.85 else (2.25, 5.2)
    width, height = random.uniform(1.7, 1.9), height * random.uniform(0.95, 1.06)
    return Thing("car", x, z, width, height, length, random.choice(PAINTS), random.randrange(1 << 16), direction)


def _vary(random: Random, colour: Colour, amount: float) -> Colour:
    red, green, blue = colour
    shade = random.uniform(-amount, amount)
    return red + shade, green + shade * random.uniform(0.6, 1.2), blue + shade


# Half of the street sides are in the city.
STYLES: tuple[Style, ...] = ("city", "city", "city", "city", "suburb", "suburb", "park", "park")
# The colours of things in plain daylight, RGB in 0 to 255.
WALLS: tuple[Colour, ...] = (
    (176, 152, 128), (150, 92, 74), (196, 184, 164), (132, 128, 124), (168, 120, 88), (206, 196, 178),
    (116, 98, 88), (158, 160, 166), (188, 164, 120), (142, 78, 64), (104, 112, 122), (214, 206, 200),
)  # fmt: skip
LEAVES: tuple[Colour, ...] = ((62, 92, 40), (74, 104, 48), (50, 80, 46), (98, 112, 44), (150, 112, 44), (134, 84, 42))
PAINTS: tuple[Colour, ...] = (
    (34, 36, 40), (196, 198, 202), (120, 124, 130), (152, 28, 28), (30, 52, 110), (226, 226, 224),
    (70, 76, 84), (46, 78, 58), (170, 150, 110), (60, 110, 160), (190, 90, 30),
)  # fmt: skip
CLOTHES: tuple[Colour, ...] = (
    (40, 44, 60), (150, 40, 44), (60, 84, 130), (90, 90, 86), (190, 180, 160), (44, 92, 70), (170, 120, 50),
    (110, 60, 110), (28, 28, 30), (208, 206, 204),
)  # fmt: skip

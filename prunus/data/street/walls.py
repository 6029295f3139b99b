"""Drawing houses in perspective, with roofs, doors and windows, and hedges."""

from prunus.data.street.canvas import Canvas, shade
from prunus.data.street.scene import NEAR, Camera, Colour, Label, Thing

GLASS: Colour = (58, 68, 82)
FLOOR = 3.1  # metres, height of a storey
WINDOWS_REACH = 40.0  # metres; beyond it a row of windows is one band
WARM: tuple[Colour, ...] = ((255, 206, 130), (255, 226, 170), (236, 190, 110), (220, 226, 240))


def draw_building(canvas: Canvas, camera: Camera, thing: Thing, sun: float, lit_share: float) -> None:
    """Paint a house: the wall along the street, the end that faces the camera, the roof.

    Args:
        sun: position in [-1, 1]; 1 is on the right, so that houses on the left are bright.
        lit_share: share of the windows that are lit.
    """
    canvas.begin(Label.BUILDING, max(thing.z, NEAR) + 0.35 * thing.length)
    front = shade(thing.colour, 1.0 - 0.22 * sun * thing.side)
    end = shade(thing.colour, 0.8 + 0.1 * abs(sun))
    near, far = thing.z, thing.z + thing.length
    outer = thing.x + thing.side * thing.width
    pitched = thing.height < 8 and thing.variant & 3 != 0
    if pitched:
        _draw_roof(canvas, camera, thing)
    if near > NEAR:
        canvas.polygon(camera.upright(((thing.x, near), (outer, near)), 0, thing.height), end)
        if pitched:
            ridge = camera.project((thing.x + outer) / 2, thing.height * 1.35, near)
            eaves = (camera.project(x, thing.height, near) for x in (thing.x, outer))
            canvas.polygon([ridge, *eaves], end)
    canvas.polygon(camera.upright(((thing.x, near), (thing.x, far)), 0, thing.height), front)
    if not pitched:  # a cornice
        canvas.detail(
            camera.upright(((thing.x, near), (thing.x, far)), thing.height - 0.4, thing.height), shade(front, 1.14)
        )
    canvas.detail(camera.upright(((thing.x, near), (thing.x, far)), 0, 0.5), shade(front, 0.7))
    _draw_windows(canvas, camera, thing, front, lit_share)


def draw_hedge(canvas: Canvas, camera: Camera, thing: Thing) -> None:
    """Paint a hedge along the street; its class is TREE."""
    canvas.begin(Label.TREE, thing.z + 2.0)
    outer, far = thing.x + thing.side * thing.width, thing.z + thing.length
    top = [(thing.x, thing.z), (thing.x, far), (outer, far), (outer, thing.z)]
    canvas.polygon([camera.project(x, thing.height, z) for x, z in top], shade(thing.colour, 1.25))
    canvas.polygon(camera.upright(((thing.x, thing.z), (outer, thing.z)), 0, thing.height), shade(thing.colour, 0.8))
    canvas.polygon(camera.upright(((thing.x, thing.z), (thing.x, far)), 0, thing.height), thing.colour)


def _draw_roof(canvas: Canvas, camera: Camera, thing: Thing) -> None:
    colour = ((120, 62, 48), (92, 72, 62), (74, 76, 82), (140, 84, 60))[thing.variant >> 2 & 3]
    near, far, middle = thing.z, thing.z + thing.length, thing.x + thing.side * thing.width / 2
    eaves = [camera.project(thing.x, thing.height, near), camera.project(thing.x, thing.height, far)]
    ridge = [camera.project(middle, thing.height * 1.35, far), camera.project(middle, thing.height * 1.35, near)]
    canvas.polygon(eaves + ridge, colour)


def _draw_windows(canvas: Canvas, camera: Camera, thing: Thing, wall: Colour, lit_share: float) -> None:
    floors = max(int(thing.height / FLOOR), 1)
    glass = shade(GLASS, 0.8 + 0.1 * (thing.variant >> 4 & 7))
    if thing.z > WINDOWS_REACH:
        for floor in range(floors):
            foot = ((thing.x, thing.z + 0.8), (thing.x, thing.z + thing.length - 0.8))
            band = camera.upright(foot, floor * FLOOR + 1.0, floor * FLOOR + 2.3)
            canvas.detail(band, shade(wall, 0.8))
        return
    bay = 2.2 + 0.25 * (thing.variant >> 7 & 3)
    num_bays = int((thing.length - 0.8) / bay)
    margin = (thing.length - num_bays * bay) / 2
    shop = thing.height > 8 and thing.variant >> 9 & 1
    for number in range(num_bays):
        start = thing.z + margin + number * bay
        if start + bay <= NEAR * 2:
            continue
        foot = ((thing.x, start + 0.25 * bay), (thing.x, start + 0.75 * bay))
        columns = [camera.project(x, 0, z)[0] for x, z in foot]
        if max(columns) < 0 or min(columns) > canvas.width or abs(columns[0] - columns[1]) < 1:
            continue  # out of sight, or seen edge-on
        for floor in range(floors):
            low, high = floor * FLOOR + 0.95, floor * FLOOR + 2.45
            if floor == 0 and shop:
                foot_of = ((thing.x, start + 0.06 * bay), (thing.x, start + 0.94 * bay))
                low, high = 0.5, 2.7
            elif floor == 0 and number == num_bays // 2:
                foot_of, low, high = foot, 0.0, 2.2  # the door
            else:
                foot_of = foot
            pane = camera.upright(foot_of, low, high)
            # A hash of the position, so that windows draw no random numbers.
            token = (thing.variant * 31 + number * 1013 + floor * 7919) * 2654435761 >> 12 & 1023
            canvas.detail(pane, shade(glass, 0.85 + token / 3000))
            if token < lit_share * 1024:
                colour = shade(WARM[token & 3], 0.55 + 0.4 * (token >> 2 & 3) / 3)
                canvas.detail(pane, colour)
                canvas.light(pane, shade(colour, 0.75))
    if shop:  # the sign board over the shop windows
        board = camera.upright(((thing.x, thing.z + margin), (thing.x, thing.z + thing.length - margin)), 2.75, 3.25)
        canvas.detail(board, ((150, 44, 40), (40, 84, 66), (48, 66, 120), (196, 160, 60))[thing.variant >> 10 & 3])

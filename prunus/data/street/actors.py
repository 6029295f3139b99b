"""Drawing cars and pedestrians."""

from prunus.data.street.canvas import Canvas, Point, shade
from prunus.data.street.scene import NEAR, Camera, Colour, Label, Thing

GLASS, TYRE, PLATE = (46, 56, 68), (24, 24, 26), (214, 210, 190)
TAIL, HEAD = (178, 26, 28), (228, 228, 214)
SKIN: tuple[Colour, ...] = ((222, 184, 156), (196, 150, 118), (142, 100, 74), (96, 66, 50))
SPECK = 6.0  # canvas pixels per metre; a smaller car is two boxes and its lights
DETAIL = 9.0  # canvas pixels per metre; a smaller car has no bumper, plate, grille or flank wheels


def draw_car(canvas: Canvas, camera: Camera, thing: Thing) -> None:
    """Paint a car as two boxes, body and cabin, seen from behind (same direction) or from the front (oncoming)."""
    left, right = thing.x - thing.width / 2, thing.x + thing.width / 2
    near, far, scale = max(thing.z, NEAR), thing.z + thing.length, camera.focal / max(thing.z, NEAR)
    belt = 0.62 * thing.height if thing.height < 2 else 0.55 * thing.height
    ground = [(left - 0.15, near - 0.2), (right + 0.15, near - 0.2), (right + 0.15, far), (left - 0.15, far)]
    canvas.shadow([camera.project(x, 0, z) for x, z in ground], 0.45)
    canvas.begin(Label.CAR, thing.z, is_object=True)
    if scale < SPECK:
        _draw_speck(canvas, camera, thing, belt)
        return
    tall = thing.height > 2
    # Where the cabin begins and ends, as a share of the length: (foot, roof) at the near end and at the far end.
    ours = thing.side > 0
    near_foot, near_roof = (
        (0.01, 0.05) if tall or (ours and thing.variant & 1) else (0.1, 0.22) if ours else (0.26, 0.42)
    )
    far_foot, far_roof = (0.98, 0.9) if not ours and thing.variant & 1 else (0.76, 0.62)
    roof_left, roof_right = left + 0.14, right - 0.14
    at = [thing.z + share * thing.length for share in (near_foot, near_roof, far_roof, far_foot)]
    project = camera.project
    paint = thing.colour
    _draw_wheels(canvas, camera, thing, scale)
    top = [project(left, belt, near), project(right, belt, near), project(right, belt, far), project(left, belt, far)]
    canvas.polygon(top, shade(paint, 1.12))
    for x, roof, facing in ((left, roof_left, 1), (right, roof_right, -1)):
        if (project(x, 0, far)[0] - project(x, 0, near)[0]) * facing < 0:  # this flank faces the camera
            flank = [project(x, 0.24, near), project(x, 0.24, far), project(x, belt, far), project(x, belt, near)]
            side = [project(x, belt, at[0]), project(x, belt, at[3])]
            side += [project(roof, thing.height, at[2]), project(roof, thing.height, at[1])]
            _draw_flank(canvas, camera, thing, x, flank, side)
    cabin = [
        project(left + 0.04, belt, at[0]),
        project(right - 0.04, belt, at[0]),
        project(roof_right, thing.height, at[1]),
        project(roof_left, thing.height, at[1]),
    ]
    canvas.polygon(
        [project(roof_left, thing.height, at[2]), project(roof_right, thing.height, at[2]), cabin[2], cabin[3]],
        shade(paint, 1.15),
    )
    canvas.polygon(cabin, shade(paint, 0.95))
    canvas.detail(_inset(cabin, 0.1), GLASS)
    canvas.polygon(_face(camera, left, right, 0.24, belt, near), paint)
    _draw_face(canvas, camera, thing, belt, scale)


def _draw_flank(canvas: Canvas, camera: Camera, thing: Thing, x: float, flank: list[Point], side: list[Point]) -> None:
    """Paint one flank: the body, the side of the cabin with its window, and from `DETAIL` on the wheels."""
    dark = shade(thing.colour, 0.72)
    canvas.polygon(flank, dark)
    canvas.polygon(side, shade(dark, 0.92))
    canvas.detail(_inset(side, 0.13), shade(GLASS, 0.85))
    if camera.focal / max(thing.z, NEAR) > DETAIL:
        _draw_flank_wheels(canvas, camera, x, thing)


def _draw_speck(canvas: Canvas, camera: Camera, thing: Thing, belt: float) -> None:
    """Paint a distant car of a few pixels."""
    left, right = thing.x - thing.width / 2, thing.x + thing.width / 2
    canvas.polygon(_face(camera, left + 0.15, right - 0.15, belt, thing.height, thing.z), shade(GLASS, 1.2))
    canvas.polygon(_face(camera, left, right, 0.05, belt, thing.z), shade(thing.colour, 0.9))
    colour, shine = (TAIL, (255, 40, 30)) if thing.side > 0 else (HEAD, (255, 246, 214))
    for x in (left, right - 0.4):
        lamp = _face(camera, x, x + 0.4, belt * 0.6, belt * 0.9, thing.z)
        canvas.detail(lamp, colour)
        canvas.light(lamp, shine)


def _draw_face(canvas: Canvas, camera: Camera, thing: Thing, belt: float, scale: float) -> None:
    """Paint lights, bumper, grille and number plate on the end that faces the camera."""
    near, middle = max(thing.z, NEAR), thing.x
    left, right = middle - thing.width / 2, middle + thing.width / 2
    colour, shine = (TAIL, (255, 40, 30)) if thing.side > 0 else (HEAD, (255, 246, 214))
    for inner, outer in ((left + 0.42, left + 0.04), (right - 0.42, right - 0.04)):
        lamp = _face(camera, inner, outer, belt * 0.66, belt * 0.88, near)
        canvas.detail(lamp, colour)
        canvas.light(lamp, shine)
    if scale < DETAIL:
        return
    canvas.detail(_face(camera, left, right, 0.24, 0.42, near), shade(thing.colour, 0.55))
    canvas.detail(_face(camera, middle - 0.27, middle + 0.27, 0.46, 0.58, near), PLATE)
    if thing.side < 0:
        canvas.detail(_face(camera, middle - 0.4, middle + 0.4, belt * 0.68, belt * 0.82, near), (36, 36, 38))


def _draw_wheels(canvas: Canvas, camera: Camera, thing: Thing, scale: float) -> None:
    for x in (thing.x - thing.width / 2 + 0.16, thing.x + thing.width / 2 - 0.16):
        canvas.polygon(_face(camera, x - 0.12, x + 0.12, 0, 0.32, max(thing.z, NEAR) + 0.1), TYRE)


def _draw_flank_wheels(canvas: Canvas, camera: Camera, x: float, thing: Thing) -> None:
    for share in (0.18, 0.8):
        z = thing.z + share * thing.length
        if z < 2 * NEAR:
            continue
        (before, row), (behind, _) = camera.project(x, 0.32, z - 0.32), camera.project(x, 0.32, z + 0.32)
        radii = (abs(behind - before) / 2 + 0.5, 0.32 * camera.focal / z)
        centre = ((before + behind) / 2, row)
        canvas.ellipse(centre, radii, TYRE)
        canvas.spot(centre, (radii[0] * 0.5, radii[1] * 0.5), (128, 130, 134))


def draw_pedestrian(canvas: Canvas, camera: Camera, thing: Thing) -> None:
    """Paint a pedestrian: legs, arms, trunk, head."""
    column, foot = camera.project(thing.x, 0, thing.z)
    unit = thing.height * camera.focal / thing.z  # canvas pixels from sole to crown
    reach, depth = 0.2 * unit, 0.04 * unit
    canvas.shadow([(column - reach, foot), (column, foot - depth), (column + reach, foot), (column, foot + depth)], 0.6)
    canvas.begin(Label.PEDESTRIAN, thing.z, is_object=True)
    stride = (0.03, 0.08, 0.13, 0.05)[thing.variant & 3] * unit
    trousers: Colour = ((44, 48, 66), (60, 56, 52), (30, 30, 34), (92, 86, 74))[thing.variant >> 2 & 3]
    skin, lean = SKIN[thing.variant >> 4 & 3], (0.02 if thing.variant >> 6 & 1 else -0.02) * unit
    hip, neck, leg = foot - 0.48 * unit, foot - 0.84 * unit, max(0.045 * unit, 0.8)
    for sole in (-stride, stride):
        canvas.polygon(
            [(column - leg, hip), (column + leg, hip), (column + sole + leg, foot), (column + sole - leg, foot)],
            trousers,
        )
        trousers = shade(trousers, 0.8)
    chest, waist = 0.115 * unit, 0.085 * unit
    hand = (stride * 0.7, -stride * 0.7)
    for shoulder, swing in zip((-chest, chest), hand, strict=True):
        arm = [(column + shoulder - leg * 0.7 + lean, neck), (column + shoulder + leg * 0.7 + lean, neck)]
        arm += [
            (column + shoulder * 1.15 + swing + leg * 0.6, hip),
            (column + shoulder * 1.15 + swing - leg * 0.6, hip),
        ]
        canvas.polygon(arm, shade(thing.colour, 0.82))
    coat = foot - (0.36 if thing.variant >> 7 & 1 else 0.46) * unit
    trunk: list[Point] = [
        (column - chest + lean, neck),
        (column + chest + lean, neck),
        (column + waist, coat),
        (column - waist, coat),
    ]
    canvas.polygon(trunk, thing.colour)
    canvas.ellipse((column + lean, foot - 0.92 * unit), (0.055 * unit, 0.075 * unit), skin)
    canvas.spot((column + lean, foot - 0.955 * unit), (0.055 * unit, 0.045 * unit), (52, 40, 32))


def _face(camera: Camera, left: float, right: float, low: float, high: float, z: float) -> list[Point]:
    """Return the outline of an upright rectangle that faces the camera."""
    return camera.upright(((left, z), (right, z)), low, high)


def _inset(corners: list[Point], share: float) -> list[Point]:
    """Return the polygon shrunk towards its centre by 2 * `share`."""
    column = sum(point[0] for point in corners) / len(corners)
    row = sum(point[1] for point in corners) / len(corners)
    return [(x + (column - x) * 2 * share, y + (row - y) * 2 * share) for x, y in corners]

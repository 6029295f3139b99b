"""The light of a street scene: the sky, and the effects of lamps, fog, rain and the camera's noise."""

import functools
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from prunus.data.street.conditions import Look
from prunus.data.street.scene import Label


def paint_sky(look: Look, random: Random, width: int, height: int, horizon: float) -> np.ndarray:
    """Return the sky down to just below the horizon, uint8 [rows, width, 3]."""
    rows = min(max(int(horizon) + 2, 1), height)
    down = (np.arange(rows, dtype=np.float32) / max(horizon, 1.0)).clip(0, 1)[:, None] ** 1.4
    sky = np.empty((3, rows, width), np.float32)
    for plane, zenith, skyline in zip(sky, look.zenith, look.skyline, strict=True):
        plane[:] = zenith + (skyline - zenith) * down
    if look.cloudiness:
        field = _crop(clouds(width, height), random, rows, width)
        cover = ((field + 1.9 * look.cloudiness - 1.0) * 1.3).clip(0, 0.9)
        thick = cover * (1.06 - 0.22 * cover)  # the underside of a thick cloud is darker
        clear = 1 - cover
        for plane, cloud in zip(sky, look.cloud, strict=True):
            plane *= clear
            plane += cloud * thick
    column, row = width * (0.5 + 0.45 * look.sun), horizon * random.uniform(0.2, 0.9)
    across = np.exp(-(((np.arange(width, dtype=np.float32) - column) / (0.16 * width)) ** 2))
    along = np.exp(-(((np.arange(rows, dtype=np.float32) - row) / (0.16 * width)) ** 2))
    disc = along[:, None] * across
    for plane, glow in zip(sky, look.glow, strict=True):
        plane += glow * disc
    return np.ascontiguousarray(sky.clip(0, 255, out=sky).astype(np.uint8).transpose(1, 2, 0))


def develop(
    picture: np.ndarray,
    labels: np.ndarray,
    depth: np.ndarray,
    lights: Image.Image | None,
    look: Look,
    random: Random,
    horizon: float,
) -> np.ndarray:
    """Return the picture as the camera takes it under `look`, uint8 [3, H, W].

    Args:
        picture: float32 [3, H, W], the scene in even daylight, with its sky; changed in place.
        labels: uint8 [H, W].
        depth: float32 [H, W], metres; ignored in the sky.
        lights: RGB, black where nothing shines.
        look: the condition.
        random: draws the noise and the rain.
        horizon: row of the horizon.
    """
    height, width = labels.shape
    ground = (labels != Label.SKY).astype(np.float32)  # the sky already has its colours
    grain = 1.0 + _crop(texture(width, height), random, height, width) * GRAIN[labels]
    beam = _beam(look, depth, width, horizon) if look.beam else np.float32(0)
    for plane, light, warmth in zip(picture, look.light, (1.0, 0.96, 0.84), strict=True):
        plane *= 1.0 + ground * (grain * light + warmth * beam - 1.0)
    if look.wet:
        _mirror(picture, labels, look.wet, int(horizon))
    thickness = np.exp(-look.fog_density * ground * depth)
    for plane, fog in zip(picture, look.fog, strict=True):
        plane -= fog
        plane *= thickness
        plane += fog
    if lights is not None:
        _shine(picture, lights, thickness)
    if look.rain:
        _streak(picture, random, look.rain)
    noise = _crop(sensor_noise(width, height), random, height, width)
    exposure = random.uniform(0.88, 1.1)
    for plane, grains in zip(picture, noise, strict=True):
        plane *= exposure * random.uniform(0.95, 1.05)
        plane += look.noise * grains
    taken: np.ndarray = picture.clip(0, 255, out=picture).astype(np.uint8)
    return taken


# Variation of each class's surface, as a share of its brightness.
GRAIN = np.zeros(len(Label), np.float32)
for _label, _share in {
    Label.ROAD: 0.06, Label.LANE_MARK: 0.08, Label.PAVEMENT: 0.07, Label.GRASS: 0.16, Label.BUILDING: 0.07,
    Label.TREE: 0.26, Label.PEDESTRIAN: 0.06, Label.CAR: 0.04,
}.items():  # fmt: skip
    GRAIN[_label] = _share


def _beam(look: Look, depth: np.ndarray, width: int, horizon: float) -> np.ndarray:
    """Return the beam of the camera car's headlamps, [H, W]: a central cone that fades with height and distance."""
    columns = (np.arange(width, dtype=np.float32) / width - 0.5) / 0.34
    rows = np.arange(depth.shape[0], dtype=np.float32) - horizon
    across, down = np.exp(-(columns**2)), 0.5 + 0.5 * np.tanh(rows / (0.08 * width) + 0.4)
    beam: np.ndarray = 1.25 * look.beam * across * down[:, None] * np.exp(-depth / 22)
    return beam


def _mirror(picture: np.ndarray, labels: np.ndarray, share: float, horizon: int) -> None:
    """Blend the picture above the horizon, upside down and smeared, into the wet road."""
    height = picture.shape[1]
    rows = (2 * horizon - np.arange(horizon, height)).clip(0, height - 1)
    mirrored = sum(picture[:, (rows - lift).clip(0)] for lift in (0, 2, 5)) / 3
    wet = share * np.isin(labels[horizon:], (Label.ROAD, Label.LANE_MARK, Label.PAVEMENT)).astype(np.float32)
    picture[:, horizon:] += wet * (mirrored - picture[:, horizon:])


def _shine(picture: np.ndarray, lights: Image.Image, thickness: np.ndarray) -> None:
    """Add the lights and the glow around them."""
    share = 4 if min(lights.size) >= 16 else 1
    small = lights.reduce(share).filter(ImageFilter.GaussianBlur(max(lights.width / 90 / share, 0.5)))
    halo = small.resize(lights.size, Image.Resampling.BILINEAR)
    shine = np.asarray(lights).transpose(2, 0, 1) * np.float32(0.9)
    shine += np.asarray(halo).transpose(2, 0, 1)
    shine *= thickness
    picture += shine


def _streak(picture: np.ndarray, random: Random, number: int) -> None:
    """Add streaks of rain."""
    height, width = picture.shape[1:]
    layer = Image.new("L", (width, height))
    brush, slant = ImageDraw.Draw(layer), random.uniform(-0.25, 0.25)
    for _ in range(number):
        column, row = random.random() * width, random.random() * height
        length = (0.03 + 0.06 * random.random()) * height
        brush.line((column, row, column + slant * length, row + length), fill=int(14 + 34 * random.random()))
    picture += np.asarray(layer).astype(np.float32)


@functools.lru_cache(maxsize=4)
def sensor_noise(width: int, height: int) -> np.ndarray:
    """Return white noise, float32 [3, H + 64, W + 64], standard deviation 1, from which scenes take crops."""
    return np.random.default_rng(1).standard_normal((3, height + 64, width + 64), np.float32)


@functools.lru_cache(maxsize=4)
def texture(width: int, height: int) -> np.ndarray:
    """Return surface grain, float32 [H + 64, W + 64], approximately in [-1, 1]: fine and medium spots."""
    return _fractal(width, height, seed=2, cells=(2, 4, 10), weights=(0.5, 0.35, 0.3))


@functools.lru_cache(maxsize=4)
def clouds(width: int, height: int) -> np.ndarray:
    """Return clouds, float32 [H + 64, W + 64], approximately in [-1, 1]: wider than high."""
    unit = max(width // 64, 1)
    return _fractal(width, height, seed=3, cells=(3 * unit, 8 * unit, 20 * unit), weights=(0.18, 0.35, 0.7), stretch=2)


def _fractal(
    width: int, height: int, *, seed: int, cells: tuple[int, ...], weights: tuple[float, ...], stretch: int = 1
) -> np.ndarray:
    """Return the weighted sum of smooth noises with spots `cells` pixels high and `stretch` times as wide."""
    generator, shape = np.random.default_rng(seed), (height + 64, width + 64)
    field = np.zeros(shape, np.float32)
    for cell, weight in zip(cells, weights, strict=True):
        coarse = generator.uniform(-1, 1, (shape[0] // cell + 2, shape[1] // (cell * stretch) + 2)).astype(np.float32)
        grown = Image.fromarray(coarse).resize(shape[::-1], Image.Resampling.BICUBIC)
        field += weight * np.asarray(grown)
    return field


def _crop(stock: np.ndarray, random: Random, height: int, width: int) -> np.ndarray:
    """Return a random window of `stock`, flipped left to right with probability 1/2."""
    row = random.randrange(stock.shape[-2] - height + 1)
    column = random.randrange(stock.shape[-1] - width + 1)
    window = stock[..., row : row + height, column : column + width]
    return window[..., ::-1] if random.random() < 0.5 else window

"""The conditions of a street scene: day, dusk, night, rain and fog, as colours and numbers."""

import dataclasses
from random import Random

from prunus.data.street.scene import Colour

CONDITIONS = ("day", "dusk", "night", "rain", "fog")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One condition with the values drawn for one scene; colours are RGB in 0 to 255."""

    zenith: Colour
    skyline: Colour
    cloud: Colour
    cloudiness: float  # approximate share of the sky
    glow: Colour  # of the sun or moon, added to the sky
    light: Colour  # factors on the daylight colours
    fog: Colour
    fog_density: float = 0.003  # extinction, 1/metre
    lit_share: float = 0.0  # of the windows; above 0 the scene has lights
    beam: float = 0.0  # strength of the camera car's headlamps
    wet: float = 0.0  # how strongly the road mirrors what is above the horizon, 0 to 1
    rain: int = 0  # number of streaks
    noise: float = 3.0  # standard deviation of the sensor's noise
    sun: float = 0.0  # in [-1, 1]; 1: from the right


def look_of(condition: str, random: Random) -> Look:
    """Draw the look of `condition`."""
    sun = random.choice((-1, 1)) * random.uniform(0.3, 1.0)
    if condition == "day":
        warm, clouds = random.uniform(0.92, 1.08), random.uniform(0.0, 0.75)
        blue = (random.uniform(64, 110), random.uniform(128, 156), random.uniform(190, 222))
        return Look(
            zenith=blue, skyline=(196, 212, 224), cloud=(246, 246, 248), cloudiness=clouds, glow=(90, 84, 60),
            light=(1.06 * warm, 1.04, 1.06 / warm), fog=(190, 204, 218), sun=sun * (1 - 0.6 * clouds),
        )  # fmt: skip
    if condition == "dusk":
        red = random.uniform(0.85, 1.15)
        return Look(
            zenith=(70, 78, 128), skyline=(244 * red, 158, 96), cloud=(206, 120, 104),
            cloudiness=random.uniform(0.2, 0.6), glow=(140, 84, 30), light=(0.74, 0.56, 0.52),
            fog=(190, 136, 112), fog_density=0.005, lit_share=random.uniform(0.15, 0.4), beam=0.1, noise=4.0, sun=sun,
        )  # fmt: skip
    if condition == "night":
        dark = random.uniform(0.8, 1.3)
        return Look(
            zenith=(8 * dark, 11 * dark, 24 * dark), skyline=(40, 38, 48), cloud=(34, 34, 44), cloudiness=0.3,
            glow=(10, 10, 16), light=(0.21 * dark, 0.22 * dark, 0.3 * dark), fog=(26, 27, 36), fog_density=0.006,
            lit_share=random.uniform(0.2, 0.5), beam=random.uniform(0.7, 1.0), noise=6.0,
        )  # fmt: skip
    if condition == "rain":
        grey = random.uniform(0.8, 1.1)
        return Look(
            zenith=(112 * grey, 118 * grey, 128 * grey), skyline=(168 * grey, 172 * grey, 178 * grey),
            cloud=(92 * grey, 96 * grey, 106 * grey), cloudiness=0.9, glow=(0, 0, 0), light=(0.66, 0.69, 0.74),
            fog=(150 * grey, 155 * grey, 162 * grey), fog_density=0.011, lit_share=0.12, beam=0.06,
            wet=random.uniform(0.25, 0.45), rain=random.randrange(60, 150), noise=4.0,
        )  # fmt: skip
    grey = random.uniform(186, 216)
    return Look(
        zenith=(grey, grey + 2, grey + 5), skyline=(grey, grey + 1, grey + 3), cloud=(grey, grey, grey), cloudiness=0.0,
        glow=(0, 0, 0), light=(0.84, 0.85, 0.87), fog=(grey, grey + 1, grey + 3),
        fog_density=random.uniform(0.028, 0.06), noise=3.0,
    )  # fmt: skip

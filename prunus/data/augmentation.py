"""Random changes of a training sample that keep image and mask together."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from prunus.compat import torchvision, transforms
from prunus.errors import RecipeError

tv_tensors = torchvision.tv_tensors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation of training samples; the default is that of ERFNet's training (T-ITS 2018).

    Raises:
        RecipeError: a value outside its range.
    """

    flip: float = 0.5  # probability of a left-right flip
    shift: int = 2  # largest shift in pixels in each direction; the border it uncovers is black and ignored
    scale: tuple[float, float] = (1.0, 1.0)  # range of a random zoom about the centre
    brightness: float = 0.0  # factors are drawn from [1 - value, 1 + value]
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise RecipeError(f"augmentation.flip is a probability in [0, 1], not {self.flip}")
        if self.shift < 0:
            raise RecipeError(f"augmentation.shift is a number of pixels, 0 or more, not {self.shift}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise RecipeError(f"augmentation.scale is a range of zoom factors (low, high), not {self.scale}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"augmentation.{name} lies in [0, 1], not {getattr(self, name)}")

    def build(self, ignore_index: int) -> torch.nn.Module:
        """Return the transform (transforms.v2) of a tv_tensors.Image together with its Mask or BoundingBoxes."""
        fill = {tv_tensors.Image: 0, tv_tensors.Mask: ignore_index, tv_tensors.BoundingBoxes: 0}
        steps: list[torch.nn.Module] = []
        if self.flip:
            steps.append(transforms.RandomHorizontalFlip(self.flip))
        if self.scale != (1.0, 1.0):
            bilinear = transforms.InterpolationMode.BILINEAR  # for the image; masks are always resampled as nearest
            zoom = transforms.RandomAffine(degrees=0, scale=self.scale, interpolation=bilinear, fill=fill)
            steps.append(zoom)
        if self.shift:
            steps.append(_RandomShift(self.shift, fill))
        if self.brightness or self.contrast or self.saturation:
            steps.append(transforms.ColorJitter(self.brightness, self.contrast, self.saturation))
        compose: torch.nn.Module = transforms.Compose(steps or [transforms.Identity()])
        return compose


DEFAULT_AUGMENTATION = Augmentation()


class _RandomShift(transforms.Transform):  # type: ignore[misc]  # torchvision has no types
    """Shift by whole pixels: exact, and cheaper than an affine resampling."""

    def __init__(self, largest: int, fill: dict[type, int]) -> None:
        super().__init__()
        self.largest, self.fill = largest, fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the shift to the right and down."""
        right, down = torch.randint(-self.largest, self.largest + 1, (2,)).tolist()
        return {"right": right, "down": down}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Pad on one side, crop on the other."""
        right, down = params["right"], params["down"]
        height, width = transforms.functional.get_size(inpt)
        padding = [max(right, 0), max(down, 0), max(-right, 0), max(-down, 0)]
        padded = transforms.functional.pad(inpt, padding, fill=self.fill[type(inpt)])
        return transforms.functional.crop(padded, max(-down, 0), max(-right, 0), height, width)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the body with torch's CPU generator seeded with `seed`; restore its state afterwards.

    `torch.manual_seed` would also reset the accelerator's generator, and with it the dropout of the network in
    training.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)

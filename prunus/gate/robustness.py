"""The main metric on images with noise, blur or changed brightness, each at several strengths."""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from prunus.compat import transforms
from prunus.data.interface import Split
from prunus.data.segmentation import STD
from prunus.gate.networks import Answer
from prunus.gate.settings import Gate
from prunus.interrupt import check
from prunus.modules.tree import on_device
from prunus.tasks.interface import BoundTask
from prunus.train.batches import evaluation_batches
from prunus.train.settings import Train

SPREAD = sum(STD) / len(STD)  # share of the pixel range (black to white) that is 1 in a normalised image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness:
    """The main metric of both networks on altered images."""

    change: str
    strength: float
    wide: float
    narrow: float


def _noise(images: Tensor, strength: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return images + torch.randn(images.shape, generator=generator) * strength / SPREAD


def _blur(images: Tensor, strength: float) -> Tensor:
    kernel = min(9, 2 * min(images.shape[-2:]) - 1)  # the reflected border must fit into the image
    blurred: Tensor = transforms.functional.gaussian_blur(images, [kernel, kernel], [strength, strength])
    return blurred


def _brightness(images: Tensor, strength: float) -> Tensor:
    return images + strength / SPREAD


CHANGES: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "noise": (_noise, (0.02, 0.05, 0.1)),  # standard deviation, as a share of white
    "blur": (_blur, (0.5, 1.0, 2.0)),  # standard deviation in pixels
    "brightness": (_brightness, (-0.3, -0.15, 0.15, 0.3)),  # added, as a share of white
}


def robustness(
    wide: Answer, narrow: Answer, task: BoundTask, split: Split, options: Train, settings: Gate
) -> tuple[Robustness, ...]:
    """Return the main metric of both networks on the first `robust_images` images, for each change and strength."""
    images = torch.utils.data.Subset(split, range(min(settings.robust_images, len(split))))
    found = list[Robustness]()
    for change, (apply, strengths) in CHANGES.items():
        for strength in strengths:
            metrics = (task.metrics(), task.metrics())
            for batch in evaluation_batches(images, options):
                check()
                if batch is not None:
                    changed = apply(batch[0], strength)
                    for answer, metric in zip((wide, narrow), metrics, strict=True):
                        metric.update(answer(changed), on_device(batch[1], options.torch_device()))
            values = [metric.compute()[0][task.main_metric] for metric in metrics]
            found.append(Robustness(change=change, strength=strength, wide=values[0], narrow=values[1]))
    return tuple(found)

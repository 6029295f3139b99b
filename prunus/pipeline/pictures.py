"""Pictures of test images with ground truth and predictions, as the task draws them."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from prunus.errors import RecordError
from prunus.modules.tree import mapped
from prunus.pipeline.context import RunContext
from prunus.records import SampleRecord
from prunus.writing import write_whole


@torch.no_grad()
def write_pictures(
    context: RunContext,
    index: int,
    networks: Mapping[str, Callable[[Tensor], Any]],
    disagreement: float | None = None,
) -> None:
    """Write the test image `index`, its ground truth and the networks' predictions as PNG files; record their paths.

    Args:
        context: the run's context.
        index: index of the image in the test split.
        networks: the networks by name, including "narrow".
        disagreement: disagreement of wide and narrow, if the image is shown because of it.
    """
    split, task = context.recipe.data.test(), context.task
    picture, (image, target) = split.picture(index), split[index]
    files = {"image": picture, "truth": task.draw_on(picture, target)}
    for name, network in networks.items():
        answers = task.predict(network(image[None]))
        files[name] = task.draw_on(picture, mapped(lambda answer: answer[0].cpu(), answers))
    kind = "" if disagreement is None else "-gallery"
    paths = {name: f"images/{index:05d}-{name}{kind}.png" for name in files}
    for name, pixels in files.items():
        _save_picture(pixels, context.folder / paths[name])
    context.recorder.write(
        SampleRecord(
            index=index,
            image=paths["image"],
            truth=paths["truth"],
            wide=paths.get("wide"),
            narrow=paths["narrow"],
            disagreement=disagreement,
        )
    )


def _save_picture(pixels: Tensor, path: Path) -> None:
    """Write uint8 [3, H, W] as a PNG file.

    Raises:
        RecordError: the disk is full, or the path is not writable.
    """
    content = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, "PNG")
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, content.getvalue())
    except OSError as error:
        text = f"the picture {path} cannot be written ({error.strerror}): make room, then start the same command again"
        raise RecordError(text) from error

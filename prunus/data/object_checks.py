"""Checks of the objects that a user's own source of boxes returns."""

from typing import Any

import torch

from prunus.boxes import EVERY, Objects
from prunus.errors import DataError


def check_objects(objects: Any, index: int, num_classes: int, most: int) -> None:
    """Check the objects of the image `index`.

    Raises:
        DataError: they are not `Objects` of one length, more than `most`, of an unknown class, or have a box that is
            not finite or has no area.
    """
    where = f"the objects of image {index}"
    if not isinstance(objects, Objects):
        raise DataError(f"{where} are a {type(objects).__name__}: a source gives prunus.boxes.Objects")
    wanted = {
        "boxes": [-1, 4],
        "labels": [-1],
        "ignored": [-1],
        "truncation": [-1],
        "occlusion": [-1],
        "distance": [-1],
    }
    shapes = {name: list(getattr(getattr(objects, name), "shape", ())) for name in wanted}
    number = shapes["labels"][0] if len(shapes["labels"]) == 1 else -1
    if any(shapes[name] != [number, *shape[1:]] for name, shape in wanted.items()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DataError(f"{where} have the shapes {found}: a source gives boxes [M, 4] and all others [M]")
    if number > most:
        raise DataError(
            f"{where} are {number}, and `most` of its source is {most}: it is the largest number in any image"
        )
    labels = objects.labels
    if labels.is_floating_point() or not bool(((labels >= EVERY) & (labels < num_classes)).all()):
        raise DataError(
            f"{where} have the labels {labels.tolist()}: each is a class from 0 to {num_classes - 1}, or {EVERY} for "
            "an ignored region, as int64"
        )
    low, high = objects.boxes[:, :2], objects.boxes[:, 2:]
    wrong = ~(torch.isfinite(objects.boxes).all(1) & (low < high).all(1))
    if bool(wrong.any()):
        raise DataError(
            f"{where} have the box {objects.boxes[wrong][0].tolist()}, which is not finite or has no area: a box is "
            "(x1, y1, x2, y2) with x1 < x2 and y1 < y2"
        )


def check_image_size(size: Any, index: int) -> None:
    """Check the (height, width) that a source states for the image `index`.

    Raises:
        DataError: not two whole numbers from 1.
    """
    fits = isinstance(size, tuple | list | torch.Size) and len(size) == 2
    if not fits or not all(isinstance(side, int) and side > 0 for side in size):
        raise DataError(f"the size of image {index} is {size!r:.60}: a source gives (height, width) in pixels")

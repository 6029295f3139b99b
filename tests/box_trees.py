"""Tiny detection sets in the layouts of their readers: images of 40 x 20, or of another size."""

import json

import numpy as np
from PIL import Image

from prunus.data import COCOData, VOCData
from prunus.data.augmentation import Augmentation

STILL = Augmentation(flip=0.0, shift=0)


def write_image(path, width=40, height=20, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(value).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def write_voc(root, boxes, names=("a", "b", "c")):
    """Write images of 40 x 20, all with the same `boxes`: (class, xmin, ymin, xmax, ymax)."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    corner = "<{0}>{1}</{0}>"
    objects = "\n".join(
        f"<object><name>{name}</name>\n<bndbox>"
        + "".join(corner.format(tag, value) for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        + "</bndbox></object>"
        for name, *box in boxes
    )
    for name in names:
        write_image(root / f"images/{name}.png")
        (root / f"annotations/{name}.xml").write_text(f"<annotation>\n{objects}\n</annotation>")
    lines = "".join(f"images/{name}.png annotations/{name}.xml\n" for name in names)
    for name in ("train.txt", "valid.txt"):
        (root / name).write_text(lines)
    (root / "label_list.txt").write_text("stop\nlight\n")
    return root


def voc(root, **settings):
    return VOCData(**{"root": root, "size": (20, 40), "augmentation": STILL, "first_pixel": 0, **settings})


def write_coco(root, annotations, images=2):
    for number in range(images):
        write_image(root / f"train2017/{number}.png")
        write_image(root / f"val2017/{number}.png")
    content = {
        "images": [{"id": 10 + number, "file_name": f"{number}.png"} for number in range(images)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"id": number, **each} for number, each in enumerate(annotations)],
    }
    (root / "annotations").mkdir(exist_ok=True)
    for name in ("train", "val"):
        (root / f"annotations/instances_{name}2017.json").write_text(json.dumps(content))
    return COCOData(root=root, size=(20, 40), augmentation=STILL, validation_share=0.5)


KITTI_LINES = (
    "Car 0.25 1 -1.5 4.0 2.0 24.0 18.0 1.5 1.6 3.4 4.4 1.6 12.5 -1.4",
    "Van 0.00 0 -1.5 30.0 2.0 39.0 18.0 1.5 1.6 3.4 4.4 1.6 30.0 -1.4",
    "Truck 0.00 0 -1.5 1.0 2.0 9.0 18.0 1.5 1.6 3.4 4.4 1.6 30.0 -1.4",
    "DontCare -1 -1 -10 10.0 0.0 50.0 5.0 -1 -1 -1 -1000 -1000 -1000 -10",
)


def write_kitti(root, lines=KITTI_LINES):
    (root / "ImageSets").mkdir(parents=True)
    (root / "training/label_2").mkdir(parents=True)
    for number in range(3):
        write_image(root / f"training/image_2/{number:06d}.png")
        (root / f"training/label_2/{number:06d}.txt").write_text("\n".join(lines) + "\n")
    for name in ("train", "val"):
        (root / f"ImageSets/{name}.txt").write_text("000000\n000001\n")
    return root

"""The data set roadsign_voc (Pascal VOC boxes) in the layout that Ultralytics reads."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path


def yolo_set(root: Path, folder: Path, limit: int | None = None) -> Path:
    """Write links to the images, and a label file per image, to `folder`; return the path of its YAML file.

    Args:
        root: folder of roadsign_voc.
        folder: folder to write.
        limit: largest number of images per split.
    """
    names = [name for name in (root / "label_list.txt").read_text().split() if name]
    for split in ("train", "valid"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        lines = (root / f"{split}.txt").read_text().splitlines()
        for line in [each for each in lines if each][:limit]:
            image, annotation = (root / part for part in line.split())
            link = folder / "images" / split / image.name
            if not link.exists():
                link.symlink_to(image.resolve())
            label = folder / "labels" / split / f"{image.stem}.txt"
            label.write_text("".join(_lines(annotation, names)))
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    path = folder / "data.yaml"
    path.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/valid\nnames:\n{listed}")
    return path


def _lines(annotation: Path, names: list[str]) -> list[str]:
    """Return one line per box: class, then centre and size as shares of the image."""
    tree = ElementTree.parse(annotation)
    width, height = (float(tree.findtext(f"size/{side}", "0")) for side in ("width", "height"))
    lines = []
    for box in tree.iter("object"):
        left, top, right, bottom = (float(box.findtext(f"bndbox/{at}", "0")) for at in ("xmin", "ymin", "xmax", "ymax"))
        centre = (left + right) / 2 / width, (top + bottom) / 2 / height
        size = (right - left) / width, (bottom - top) / height
        numbers = " ".join(f"{value:.6f}" for value in (*centre, *size))
        lines.append(f"{names.index(str(box.findtext('name')))} {numbers}\n")
    return lines

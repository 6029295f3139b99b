"""Image folders: one folder per class, the layout of ImageNet and many other data sets."""

import dataclasses
import functools
import mimetypes
from pathlib import Path
from typing import final

from prunus.data.classification import CROP_AND_FLIP, ClassificationData, CropAndFlip
from prunus.data.decode import ENDINGS, MAX_PIXELS
from prunus.data.files import check_layout
from prunus.data.interface import OnError, SplitName
from prunus.data.labelled import LabelledFiles, class_names, held_out
from prunus.data.listing import is_hidden
from prunus.data.segmentation import check_size
from prunus.errors import DataError, RecipeError

LAYOUT = """\
  train/<class>/**/*.jpg        the images, one folder per class (also .png .webp .tif .bmp .gif .pgm ...)
  val/<class>/**/*.jpg          or test/, as `validation_folder` and `test_folder` say
  classes.json                  if there is one: a list of the classes' names, in the order of their folders"""

KINDS = mimetypes.MimeTypes()  # Python's own table, independent of the machine's
# Images that this table lacks: of raw sensors, of high range, and arrays.
OTHERS = (
    ".jp2", ".j2k", ".jxl", ".tga", ".psd", ".dds", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw",
    ".npy", ".npz",
)  # fmt: skip


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolderData(ClassificationData):
    """Images in folders named by their class; the classes are the training folders in sorted order.

    Images in subfolders of a class folder are read too; hidden files and folders (".ipynb_checkpoints") are skipped.
    If `validation_folder` is null, the last share of each class's training images is held out for validation. With
    `block_separator`, files whose names agree up to the separator form a block that is never split: "_" keeps the
    frames of one traffic sign of GTSRB (`00012_00005.png`) together.

    Raises:
        RecipeError: an invalid size (see `check_size`), or a share outside (0, 1).
        DataError: at first use, a missing or malformed folder or file (named).
    """

    root: Path
    size: tuple[int, int] = (224, 224)  # (height, width)
    augmentation: CropAndFlip = CROP_AND_FLIP
    grey: bool = False
    seed: int = 0  # of the augmentation
    cache: bool = True
    on_error: OnError = "raise"  # at an unreadable training image; "skip" uses the next one
    max_skipped: float = 0.01  # share of the training images that may be skipped
    max_pixels: int = MAX_PIXELS  # a larger image is refused before it is decoded
    train_folder: str = "train"
    validation_folder: str | None = "val"
    test_folder: str = "val"
    validation_share: float = 0.1  # of each class's training images, if there is no validation folder
    block_separator: str | None = None

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 < self.validation_share < 1:
            raise RecipeError(f"data.validation_share lies between 0 and 1, it is not {self.validation_share}")

        if self.block_separator == "":
            raise RecipeError("data.block_separator is empty: give the characters after a block's name, or null")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, from `classes.json` if it exists, else from the folders."""
        path = Path(self.root) / "classes.json"
        if not path.exists():
            return self._folders
        names = class_names(path)
        if len(names) != len(self._folders):
            raise DataError(f"{path} must be a list of {len(self._folders)} names, one for each folder of classes")
        return names

    def source(self, split: SplitName) -> LabelledFiles:
        """Return the images of the split's folder."""
        folder = {"train": self.train_folder, "validation": self.validation_folder, "test": self.test_folder}[split]
        paths, labels = self._listed(self.train_folder if folder is None else folder)
        if split != "test" and self.validation_folder is None:
            separator = self.block_separator
            blocks = None if separator is None else [path.name.partition(separator)[0] for path in paths]
            chosen = held_out(labels, self.validation_share, blocks)[split == "validation"]
            if not chosen:
                one = "image" if blocks is None else "block"
                raise DataError(
                    f"{Path(self.root) / self.train_folder} has one {one} per class, so none can be held out for "
                    "validation; say which folder holds such images: data.validation_folder"
                )
            paths, labels = [paths[index] for index in chosen], [labels[index] for index in chosen]
        origin = str(Path(self.root) / (folder or self.train_folder))
        size = None if self.cropped else self.size
        return LabelledFiles(paths, labels, size=size, origin=origin, max_pixels=self.max_pixels)

    @functools.cached_property
    def _folders(self) -> tuple[str, ...]:
        root = Path(self.root)
        check_layout(root, LAYOUT, self.train_folder)
        names = [path.name for path in _folders_in(root / self.train_folder)]
        if not names:
            raise DataError(f"{root / self.train_folder} holds no folder of a class. Expected in {root}:\n{LAYOUT}")
        return tuple(names)

    def _listed(self, folder: str) -> tuple[list[Path], list[int]]:
        root = Path(self.root)
        check_layout(root, LAYOUT, folder)
        numbers = {name: number for number, name in enumerate(self._folders)}
        paths, labels = list[Path](), list[int]()
        for inner in _folders_in(root / folder):
            if inner.name not in numbers:
                raise DataError(f"{inner} is not a class of {root / self.train_folder}, which has {len(numbers)}")
            files = _images_in(inner)
            if not files and folder == self.train_folder:
                raise DataError(f"{inner} holds no image ({' '.join(ENDINGS)}); fill it, or remove the folder")
            paths += files
            labels += [numbers[inner.name]] * len(files)
        return paths, labels


def _folders_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: it must hold one folder per class")
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(Path(path.name)))


def _images_in(folder: Path) -> list[Path]:
    """Return the images of a class in sorted order; hidden files and files that are not images are skipped.

    Raises:
        DataError: an image that is not a file or has an unsupported format, or a link to a folder, which would
            otherwise be dropped silently.
    """
    found = (path for path in folder.rglob("*") if not is_hidden(path.relative_to(folder)))
    images = list[Path]()
    for path in sorted(found):
        if path.is_dir():
            if path.is_symlink():
                raise DataError(
                    f"{path} is a link to a folder, which is not followed: put the folder there, or its images"
                )
        elif path.suffix.lower() in ENDINGS:
            if not path.is_file():
                raise DataError(f"{path} is not a file ({_instead(path)}): put the image there, or remove it")
            images.append(path)
        elif path.suffix.lower() in OTHERS or (KINDS.guess_type(path.name)[0] or "").startswith("image/"):
            raise DataError(
                f"{path} is an image of an unsupported format: convert it to {' '.join(ENDINGS)}, or remove it"
            )
    return images


def _instead(path: Path) -> str:
    return f"it is a link to {path.readlink()}, which does not exist" if path.is_symlink() else "it is a pipe or device"

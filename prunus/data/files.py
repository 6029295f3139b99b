"""Reading images and masks from files; errors name the file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from prunus.compat import torchvision, transforms
from prunus.data.decode import MAX_PIXELS, Picture, decode
from prunus.data.listing import relative
from prunus.data.masks import Colours, read_mask
from prunus.errors import DataError


def check_layout(root: Path, expected: str, *needed: str) -> None:
    """Check that the folder `root` holds the paths `needed`; `expected` describes the layout in the error.

    Raises:
        DataError: names the missing path, the folder and the expected layout.
    """
    missing = [root, *(root / path for path in needed)]
    missing = [path for path in missing if not path.exists()]
    if missing:
        raise DataError(
            f"{missing[0]} does not exist. data.root is {root} (that is {root.resolve()}); expected there:\n{expected}"
        )


def read_image(file: Path | BinaryIO, name: str | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the image as uint8 [H, W, 3], RGB; errors call an open file `name`.

    16-bit grey is scaled to 8 bits, transparency is dropped, and the EXIF orientation is applied.

    Raises:
        DataError: the file is missing, truncated or not an image, or its value range is unknown.
    """
    return decode(file, Picture.to_rgb, name, max_pixels)


class FileSource:
    """Samples from pairs of files, resized to one size (images bilinear, masks nearest).

    Args:
        pairs: (image, mask) paths; both must exist.
        size: (height, width) to resize to.
        table: see `read_mask`.
        meaning: see `read_mask`.
        colours: (red, green, blue) -> class or ignore_index, for masks of colours; None if masks hold class numbers
            only.
        max_pixels: larger images and masks are refused before they are decoded.

    Raises:
        DataError: a file is missing; when reading, an image or mask that `read_image` or `read_mask` refuses, or an
            image and a mask of different sizes.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Path, Path]],
        *,
        size: tuple[int, int],
        table: np.ndarray,
        meaning: str,
        colours: Colours | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        for image, mask in pairs:
            if not image.is_file():
                raise DataError(f"{image} does not exist, though it is listed (mask {mask})")
            if not mask.is_file():
                raise DataError(f"{image} has no mask: {mask} does not exist. Add it, or remove the image.")
        self.pairs, self.size = tuple(pairs), tuple(size)
        self.table, self.meaning, self.colours = table, meaning, colours
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.pairs)

    def listing(self) -> Iterable[str]:
        """Yield each image and its mask."""
        images, masks = ([pair[side] for pair in self.pairs] for side in (0, 1))
        return (f"{image} {mask}" for image, mask in zip(relative(images), relative(masks), strict=True))

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image_path, mask_path = self.pairs[index]
        image, mask = read_image(image_path, max_pixels=self.max_pixels), self._read_mask(mask_path)
        if image.shape[:2] != mask.shape:
            raise DataError(
                f"{image_path} is {_shape(image)} pixels (width x height), its mask {mask_path} "
                f"{_shape(mask)}; they must be of one size"
            )
        pixels = torchvision.tv_tensors.Image(torch.from_numpy(image).movedim(-1, 0))
        return self._resize(pixels), self._resize(torchvision.tv_tensors.Mask(torch.from_numpy(mask)))

    def mask(self, index: int) -> torch.Tensor:
        """Return the mask alone: the image is not decoded."""
        return self._resize(torchvision.tv_tensors.Mask(torch.from_numpy(self._read_mask(self.pairs[index][1]))))

    def _read_mask(self, path: Path) -> np.ndarray:
        return read_mask(path, self.table, self.meaning, self.colours, self.max_pixels)

    def _resize(self, picture: torch.Tensor) -> torch.Tensor:
        if tuple(picture.shape[-2:]) != self.size:
            # Antialiasing applies to images only: transforms.v2 always resizes a mask as nearest.
            picture = transforms.functional.resize(picture, list(self.size), antialias=True)
        return picture.as_subclass(torch.Tensor).contiguous()


def _shape(picture: np.ndarray) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]}"

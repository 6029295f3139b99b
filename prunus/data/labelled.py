"""Sources of labelled images, from files or memory, optionally cached; held-out samples for validation."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from prunus.compat import torchvision, transforms
from prunus.data.decode import MAX_PIXELS
from prunus.data.files import read_image
from prunus.data.listing import conditions_at, listing_of, relative
from prunus.data.source import PixelCache, asking, check_pixels
from prunus.decoding import DecodingError, from_json, read_text
from prunus.errors import DataError


class LabelledSource(Protocol):
    """Raw samples of one split; an index always gives the same sample."""

    @property
    def labels(self) -> Sequence[int]:
        """The class of each sample."""
        ...

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return the image, uint8 [3, H, W], RGB."""
        ...


class LabelledFiles:
    """Images from files, each stretched to `size` (height, width), or unchanged if `size` is None.

    An image of more than `max_pixels` pixels is refused before it is decoded.

    Raises:
        DataError: no files; when reading, a file that is missing, truncated or not an image.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Sequence[int],
        *,
        size: tuple[int, int] | None,
        origin: str,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        if not paths:
            raise DataError(f"{origin} holds no image")
        self.paths, self.labels, self.size = tuple(paths), tuple(labels), size
        self.max_pixels = max_pixels

    def listing(self) -> Iterable[str]:
        """Yield each file and its label."""
        return (f"{path} {label}" for path, label in zip(relative(self.paths), self.labels, strict=True))

    def __getitem__(self, index: int) -> torch.Tensor:
        pixels = read_image(self.paths[index], max_pixels=self.max_pixels)
        return stretched(torchvision.tv_tensors.Image(torch.from_numpy(pixels).movedim(-1, 0)), self.size)


class LabelledArray:
    """Images from memory, uint8 [N, 3, H, W]."""

    def __init__(self, images: torch.Tensor, labels: Sequence[int], *, size: tuple[int, int] | None) -> None:
        self.images, self.labels, self.size = images, tuple(labels), size

    def listing(self) -> Iterable[str]:
        """Yield the label of each image."""
        return map(str, self.labels)

    def __getitem__(self, index: int) -> torch.Tensor:
        return stretched(torchvision.tv_tensors.Image(self.images[index].clone()), self.size)


class CachedImages:
    """Caches the images of `source`, all of one size, in memory at their first use."""

    def __init__(self, source: LabelledSource, size: tuple[int, int]) -> None:
        self._source, self._size = source, size
        self._cache = PixelCache(len(source.labels), 3, *size)

    @property
    def labels(self) -> Sequence[int]:
        """The class of each sample."""
        return self._source.labels

    def listing(self) -> Iterable[str]:
        """Return the listing of the source."""
        return listing_of(self._source)

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions of an image."""
        return conditions_at(self._source, index)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._cache.get(index, self._read)

    def _read(self, index: int) -> torch.Tensor:
        with asking(f"image {index}"):
            image = self._source[index]
        check_pixels(image)
        if tuple(image.shape[1:]) != tuple(self._size):
            raise DataError(f"image {index} has size {list(image.shape[1:])}, and data.size is {list(self._size)}")
        return image


def stretched(image: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """Return the image resized to `size` (height, width) with antialiasing; unchanged if `size` is None."""
    if size is not None and tuple(image.shape[-2:]) != tuple(size):
        image = transforms.functional.resize(image, list(size), antialias=True)
    return image.as_subclass(torch.Tensor).contiguous()


def held_out(
    labels: Sequence[int], share: float, blocks: Sequence[object] | None = None
) -> tuple[list[int], list[int]]:
    """Return the training indices and the held-out indices: the last `share` of each class's blocks.

    Neighbouring samples resemble each other (frames of one sign, characters of one photograph), so a random split
    would measure memorisation. A block (default: one sample) is never split; a class with a single block stays in
    training.
    """
    names = list(range(len(labels))) if blocks is None else list(blocks)
    by_class: dict[int, dict[object, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, (label, block) in enumerate(zip(labels, names, strict=True)):
        by_class[label][block].append(index)
    kept, held = list[int](), list[int]()
    for members in by_class.values():
        groups = list(members.values())
        num_held = min(len(groups) - 1, max(1, round(share * len(groups)))) if share else 0
        for position, group in enumerate(groups):
            (held if position >= len(groups) - num_held else kept).extend(group)
    return sorted(kept), sorted(held)


def class_names(path: Path) -> tuple[str, ...]:
    """Return the class names listed in the JSON file `path`.

    Raises:
        DataError: the file does not hold a list of names, or a name occurs twice.
    """
    try:
        names = from_json(read_text(path))
    except (OSError, DecodingError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if (
        not isinstance(names, list)
        or not names
        or not all(type(name) in (str, int, float) and str(name).strip() for name in names)
    ):
        raise DataError(f"{path} must be a list of the classes' names, of which none is empty")
    told = tuple(str(name) for name in names)
    if repeated := sorted(name for name, count in Counter(told).items() if count > 1):
        raise DataError(f"{path} gives several classes the name {', '.join(repeated[:5])}; rename them")
    return told

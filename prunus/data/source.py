"""Sources of samples: raw uint8 images and masks by index, checks of them, and a cache in shared memory."""

import contextlib
import math
import mmap
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from prunus.data.listing import conditions_at, listing_of
from prunus.errors import DataError, PrunusError


class Source(Protocol):
    """Raw samples of one split, all of one size. The same index always gives the same sample."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the image, uint8 [3, H, W], RGB, and the mask, uint8 [H, W], of classes or ignore_index."""
        ...

    def mask(self, index: int) -> torch.Tensor:
        """Return the mask alone, without decoding the image if possible."""
        ...


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn an exception in a data set's own code into a `DataError` that names `what` was read, and the line.

    Raises:
        DataError: the body raised an exception other than a `PrunusError`.
    """
    try:
        yield
    except PrunusError:
        raise
    except Exception as error:  # whatever the user's own code raises
        *_, last = traceback.extract_tb(error.__traceback__)
        raise DataError(
            f"{what} cannot be read: the data set's own code raised {type(error).__name__}: {error} ({last.filename}, "
            f"line {last.lineno}, in {last.name})"
        ) from error


def check_pixels(image: torch.Tensor) -> None:
    """Check that an image has the form that a source must return.

    Raises:
        DataError: not a uint8 tensor [..., 3, H, W].
    """
    fits = _is_bytes(image) and image.dim() >= 3
    if not fits or image.shape[-3] != 3:
        raise DataError(
            f"an image of the data set is {_kind(image)}: a source gives "
            "pixels as they lie in files, uint8 [3, H, W], RGB; they are scaled and normalised afterwards"
        )


def check_pair(image: torch.Tensor, mask: torch.Tensor, size: tuple[int, int] | None = None) -> None:
    """Check that an image and its mask have the form and size that a source must return.

    Raises:
        DataError: the image or the mask has another type or size.
    """
    check_pixels(image)
    wanted = list(size or image.shape[-2:])
    fits = _is_bytes(mask) and list(mask.shape) == wanted
    if not fits or list(image.shape[-2:]) != wanted:
        raise DataError(
            f"an image of the data set has size {list(image.shape[-2:])}, its mask is {_kind(mask)}: "
            f"a source gives both at one size, here {wanted}, the mask as uint8 [H, W], a class or void for each pixel"
        )


def pair_of(source: Source, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image and the mask of the sample `index`; their types are not checked.

    Raises:
        DataError: the source raises, or does not return a pair.
    """
    with asking(f"sample {index}"):
        pair: Any = source[index]
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(
            f"sample {index} is {_kind(pair)}"
            + (f" of {len(pair)}" if isinstance(pair, tuple | list) else "")
            + ": a source gives a pair, the image as uint8 [3, H, W] and the mask as uint8 [H, W]"
        )
    return pair[0], pair[1]


def check_mask(mask: torch.Tensor, index: int) -> None:
    """Check that the mask of the sample `index` has the form that a source must return.

    Raises:
        DataError: not a uint8 tensor [H, W].
    """
    if not _is_bytes(mask) or mask.dim() != 2:
        raise DataError(f"the mask of sample {index} is {_kind(mask)}: a source gives uint8 [H, W]")


def _is_bytes(value: Any) -> bool:
    """Whether a value is a tensor of bytes in this process's memory that is not empty."""
    return (
        isinstance(value, torch.Tensor)
        and value.dtype == torch.uint8
        and value.device.type == "cpu"
        and value.layout == torch.strided
        and value.numel() > 0
    )


def _kind(value: Any) -> str:
    """Return the dtype, shape and place of a tensor, or the type name of any other value."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    place = "" if value.device.type == "cpu" else f" on {value.device}"
    layout = "" if value.layout == torch.strided else f" ({str(value.layout).removeprefix('torch.')})"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}{layout}{place}"


def shared_bytes(*shape: int) -> np.ndarray:
    """Return uint8 zeros in memory that forked processes share; pages are allocated when they are first written.

    Raises:
        DataError: there is not enough memory.
    """
    try:
        return np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
    except (OSError, ValueError, OverflowError) as error:
        each = " x ".join(map(str, shape[1:]))
        raise DataError(
            f"{shape[0]} samples of {each} bytes ({math.prod(shape) / 1e9:.1f} GB) cannot be "
            f"kept in memory ({error}): set data.cache: false, or a smaller data.size"
        ) from error


class PixelCache:
    """A cache of samples, uint8 [num, channels, H, W], each read at its first use.

    The memory is an anonymous shared mapping whose pages are allocated as samples arrive: forked DataLoader
    workers read and fill the same cache across epochs, without /dev/shm. A spawned worker starts with its own
    empty cache. Two workers that fill the same entry write equal bytes.
    """

    def __init__(self, num: int, *shape: int) -> None:
        self._shape = (num, *shape)
        self._pixels, self._filled = shared_bytes(num, *shape), shared_bytes(num)

    def get(self, index: int, read: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """Return a copy of the sample `index`; `read` supplies it at its first use."""
        if not self._filled[index]:
            self._pixels[index] = read(index).numpy()
            self._filled[index] = 1  # set last, so that no other process reads a partial sample
        return torch.from_numpy(self._pixels[index].copy())

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelCache, self._shape  # a mapping cannot be pickled


class CachedSource:
    """Caches the samples of `source` in memory at their first use."""

    def __init__(self, source: Source, size: tuple[int, int]) -> None:
        self._source, self._size = source, size
        self._cache = PixelCache(len(source), 4, *size)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        planes = self._cache.get(index, self._read)
        return planes[:3], planes[3]

    def mask(self, index: int) -> torch.Tensor:
        """Return the mask alone."""
        return self[index][1]

    def listing(self) -> Iterable[str]:
        """Return the listing of the source."""
        return listing_of(self._source)

    def conditions(self, index: int) -> tuple[str, ...]:
        """Return the conditions of an image."""
        return conditions_at(self._source, index)

    def _read(self, index: int) -> torch.Tensor:
        image, mask = pair_of(self._source, index)
        check_pair(image, mask, self._size)
        return torch.cat([image, mask[None]])

"""Reading weight files as tensors by name: files of safetensors or `torch.save`, without running code in them."""

import os
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from prunus.decoding import DecodingError
from prunus.errors import DataError

WRAPPERS = ("model", "state_dict", "model_state_dict")  # keys under which training scripts store the weights
PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and AveragedModel, and of torch.compile
COUNTERS = ("n_averaged",)  # stored by AveragedModel besides the weights
STARTS = (b"PK", b"\x80")  # first bytes of a file of torch.save: a zip archive, or a pickle before torch 1.6
MOST_EXPANDED = 2**24  # elements of a tensor that repeats its memory: its copy takes what the file does not
DEPTH = 4  # largest number of nested wrappers


def read_tensors(path: Path, own: Mapping[str, Any], part: str = "") -> dict[str, Tensor]:
    """Return the tensors in a weight file, by their names in the network.

    A file of `torch.save` may hold them inside "model", "state_dict" or "model_state_dict". The prefixes "module." and
    "_orig_mod." are removed if all names have them and none in the network does.

    Args:
        path: a file of safetensors, or of `torch.save` with only tensors and plain values.
        own: the names in the network, as keys.
        part: the part of the file to read, "ema" or "backbone": a key, or a prefix of the names.

    Raises:
        DataError: the file is missing, damaged, or holds code or several sets of weights; with the remedy.
    """
    try:
        content = read_content(path)
    except (OSError, DecodingError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise DataError(f"weights {path} cannot be read: {reason}") from error
    content, part = _unwrapped(content, part, path)
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES * DEPTH:
        tensors = _without(prefix, tensors, own)
    if part:
        tensors = {
            name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")
        }
    if not tensors:
        where = f" under {part!r}" if part else ""
        keys = ", ".join(repr(key) for key in list(content)[:8])
        raise DataError(f"weights {path} hold no tensors{where}; keys: {keys or 'none'}; name the place with `part`")
    for name, tensor in tensors.items():
        if not _is_plain(tensor):
            raise DataError(
                f"weights {path}: {name} is not a plain tensor with values: write it dense and in floating point"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise DataError(f"weights {path}: {name} holds values that are not finite: training cannot begin with it")
    return tensors


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, has a value for each element, and is not quantised, as 8-bit floats are."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return False
    stored = tensor.untyped_storage().nbytes() // tensor.element_size()
    expanded = tensor.numel() > max(stored, MOST_EXPANDED)
    return not expanded and not (tensor.is_floating_point() and tensor.element_size() == 1)


def read_content(path: Path) -> Mapping[Any, Any]:
    """Return the content of a file of safetensors or `torch.save`, without running code in it.

    Raises:
        OSError: the file cannot be opened.
        DecodingError: the file is damaged, of another kind, or holds code.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DecodingError("it is not a regular file")
        start = file.read(9)
    if start[8:] == b"{":  # safetensors: 8 bytes, the header's length, then the header in JSON
        try:
            return safetensors.torch.load_file(path)
        except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
            raise DecodingError(f"it is a damaged safetensors file: {error}") from error
    if not start.startswith(STARTS):
        raise DecodingError("it is neither a safetensors file nor one of torch.save, or only a fragment of one")
    return _of_torch(path)


def _of_torch(path: Path) -> Mapping[Any, Any]:
    zipped = zipfile.is_zipfile(path)
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise DecodingError("its parts are compressed, which torch does not write")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except DecodingError:
        raise
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise DecodingError(f"it is neither a safetensors file nor one of torch.save: {error}") from error
        raise DecodingError(
            f"it is a pickle that runs code when it is read (it names {found[1]}), and such files are not read. Where "
            "you trust it, load it yourself and write the tensors alone: safetensors.torch.save_file("
            'model.state_dict(), "weights.safetensors")'
        ) from error
    except Exception as error:  # whatever a damaged file makes torch's reader raise
        raise DecodingError(f"it is a damaged file of torch.save: {error}") from error
    if not isinstance(content, Mapping):
        raise DecodingError(f"it holds a {type(content).__name__}, not a mapping of names to tensors")
    return content


def _unwrapped(content: Mapping[Any, Any], part: str, path: Path) -> tuple[Mapping[Any, Any], str]:
    """Return the mapping that holds the tensors, and the unused rest of `part`."""
    for _ in range(DEPTH):
        first, _, rest = part.partition(".")
        if first and isinstance(content.get(first), Mapping):
            content, part = content[first], rest
            continue
        inside = [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
        if len(inside) > 1:
            raise DataError(
                f"weights {path} hold {' and '.join(map(repr, inside))}: choose one with `part: {inside[0]}`"
            )
        if not inside:
            break
        content = content[inside[0]]
    return content, part


def _without(prefix: str, tensors: dict[str, Tensor], own: Mapping[str, Any]) -> dict[str, Tensor]:
    names = [name for name in tensors if name not in COUNTERS]
    if not all(name.startswith(prefix) for name in names) or any(name.startswith(prefix) for name in own):
        return tensors
    return {name.removeprefix(prefix): tensors[name] for name in names}

"""Pretrained weights for the start of a training, as a recipe names them."""

import dataclasses
import fnmatch
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, nn

from prunus import storage
from prunus.errors import DataError, RecipeError
from prunus.models.weight_file import read_tensors
from prunus.modules.paths import near_paths

MOST_NAMED = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """A file of weights, and their place in the network.

    Attributes:
        path: a file of safetensors, or of `torch.save` with a state dict, possibly inside "model", "state_dict" or
            "model_state_dict", with or without the prefixes "module." and "_orig_mod.".
        into: path of the submodule that gets the weights, such as "encoder"; "": the whole network.
        part: the part of the file to read, such as "ema" or "backbone"; "": the whole file.
        leave_out: patterns over the names of tensors below `into`, such as "head.*", that keep their initial values;
            the path of a module stands for all of its tensors.
        strict: whether all other names must be both in the file and in the network. Otherwise tensors missing in the
            file keep their initial values, and those missing in the network are unused. Shapes must always agree.
    """

    path: str
    into: str = ""
    part: str = ""
    leave_out: tuple[str, ...] = ()
    strict: bool = True

    def __post_init__(self) -> None:
        if not self.path:
            raise RecipeError("weights: `path` must name a file")
        if wrong := [pattern for pattern in self.leave_out if not pattern]:
            raise RecipeError(f'weights: leave_out takes patterns such as "head.*", not {wrong[0]!r}')

    @property
    def is_whole(self) -> bool:
        """Whether the weights are for the whole network."""
        return not self.into and not self.leave_out and self.strict

    def sha256(self) -> str:
        """Return the SHA-256 of the file.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            return storage.sha256(Path(self.path))
        except OSError as error:
            raise DataError(f"weights {self.path} cannot be read: {error.strerror}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loaded:
    """The result of `load_`: tensors loaded from the file, those with initial values, and unused ones of the file."""

    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def summary(self) -> str:
        """Return a description in one line."""
        text = f"{len(self.loaded)} tensors come from the file"
        text += f"; initial values kept: {_some(self.fresh)}" if self.fresh else ""
        return text + (f"; unused in the file: {_some(self.unused)}" if self.unused else "")


def load_(model: nn.Module, weights: Weights) -> Loaded:
    """Copy the weights of the file into `model`.

    Raises:
        DataError: the file cannot be read, or is refused.
        RecipeError: names or shapes do not fit (listed), there is no such submodule, or a pattern matches nothing.
    """
    target = _submodule(model, weights.into)
    own = {name: each for name, each in target.state_dict(keep_vars=True).items() if isinstance(each, Tensor)}
    tensors = read_tensors(Path(weights.path), own, weights.part)
    left_out = _left_out(weights.leave_out, [*own, *tensors])
    given = {name: tensor for name, tensor in tensors.items() if name not in left_out}
    other_shape = [
        f"{name} {list(tensor.shape)} for {list(own[name].shape)}"
        for name, tensor in given.items()
        if name in own and own[name].shape != tensor.shape
    ]
    if other_shape:
        raise _misfit(weights, [f"other shapes: {_some(other_shape)}"])
    no_floats = [
        f"{name} {str(tensor.dtype).removeprefix('torch.')}"
        for name, tensor in given.items()
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point()
    ]
    if no_floats:
        raise _misfit(weights, [f"not in floating point (quantised?): {_some(no_floats)}"])
    found = target.load_state_dict(given, strict=False)
    unused = tuple(found.unexpected_keys)
    loaded = tuple(name for name in given if name not in set(unused))
    known = {id(own[name]) for name in loaded if name in own}
    absent = [name for name in found.missing_keys if name not in left_out and id(own.get(name)) not in known]
    missing = [f"the file lacks {_some(absent)}"] if absent else []
    missing += [f"the network has no {_some(unused)}"] if unused else []
    if not loaded or (weights.strict and missing):
        raise _misfit(weights, missing or ["everything is left out"])
    return Loaded(loaded=loaded, fresh=tuple(name for name in own if name in left_out or name in absent), unused=unused)


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        near = near_paths(path, (each for each, _ in model.named_modules()))
        raise RecipeError(f"weights: `into` is {path!r}, and the network has no such module{near}") from error


def _left_out(patterns: Sequence[str], names: Iterable[str]) -> set[str]:
    names, result = list(dict.fromkeys(names)), set[str]()
    for pattern in patterns:
        matching = {name for glob in (pattern, f"{pattern}.*") for name in fnmatch.filter(names, glob)}
        if not matching:
            raise RecipeError(f"weights: leave_out {pattern!r} matches no tensor{near_paths(pattern, names)}")
        result |= matching
    return result


def _misfit(weights: Weights, problems: Sequence[str]) -> RecipeError:
    where = f"`{weights.into}` of the network" if weights.into else "the network"
    return RecipeError(
        f"weights {weights.path} do not fit {where}: {'; '.join(problems)}. Leave out a head of other classes with "
        '`leave_out: ["head.*"]`, name a submodule with `into` or a part of the file with `part`, or load what fits '
        "with `strict: false`"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more

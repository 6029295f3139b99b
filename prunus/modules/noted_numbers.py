"""Whole numbers that a network's objects keep anywhere: attributes of modules, in containers, in configurations."""

import dataclasses
import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunus.modules.kinds import SizedLayer

DEPTH = 5  # of containers and objects in each other
OWN = frozenset(vars(nn.Module()))  # what torch keeps in every module
BESIDE = ("module", "layer")  # under these a dictionary names the module that its numbers belong to
# What numbers are called that count channels, and those that count something else: the one place to add a name.
WIDTH = re.compile(
    r"(^|_)(channels?|chs?|chans|chns|dims?|planes|filters|features|num_chs|hidden|hidden_sizes?|head_hidden_size|intermediate_size|"
    r"embedding_size|embed|embeds|d_model|d_ff|d_inner|widths)$"
)
OTHER = re.compile(
    r"(^|_)(head_dim|head_size|qk_dim|num_heads|heads|classes|labels|layers|depths?|stages|blocks|kernel\w*|strides?|"
    r"padding|dilations?|reduction|scale\w*|steps?|epochs?|seeds?|length|positions?|position_embeddings|vocab_size|"
    r"(im|img|image|input|patch|window|crop|pool|batch|grid|sr|in|out)_sizes?|height|width|groups?|version|max_\w+|"
    r"top_k|id|ids|index|indices|token_id|rank|num_queries|queries)$"
)


TAKEN = re.compile(r"^(in|input)_")  # of the module that keeps it
RETURNED = re.compile(r"(^|_)(out|output|num_features|head_hidden_size|embed_dims?|d_model)(_|$)")


class Meaning(enum.Enum):
    """What a number's name says of it."""

    TAKEN = "it counts the channels that its module takes"
    RETURNED = "it counts the channels that its module, or all of it but a head, returns"
    WIDTH = "it counts channels"
    UNKNOWN = "it may count channels"


@dataclasses.dataclass(frozen=True)
class NotedNumber:
    """A whole number that a network keeps.

    Attributes:
        path: dotted path of the module.
        name: where in the module, in keys joined with dots: "num_features", "config.hidden_sizes.1".
        value: the number.
        meaning: what its name says.
        beside: path of the module that stands beside it in a dictionary (timm's `feature_info`), "" where none does.
        configures: whether it lies in an object of its own, such as a configuration that networks are built from.
        items: how many items the list has in which it stands, 0 where it stands in none.
    """

    path: str
    name: str
    value: int
    meaning: Meaning
    beside: str
    configures: bool
    items: int = 0


def noted_numbers(model: nn.Module) -> Iterator[NotedNumber]:
    """Yield the whole numbers above one that may count channels; not the sizes that torch's own layers keep.

    An object that several modules keep is the first one's that keeps it as an attribute.
    """
    owners: dict[int, str] = {}
    for path, module in model.named_modules():
        for value in _kept(module).values():
            owners.setdefault(id(value), path)
    for path, module in model.named_modules():
        yield from numbers_of(module, path, owners)


def numbers_of(module: nn.Module, path: str = "", owners: Mapping[int, str] | None = None) -> Iterator[NotedNumber]:
    """Yield the numbers that one module keeps; not what another of the `owners` (by id of the object) keeps."""
    seen = set[int]()
    for name, value in _kept(module).items():
        yield from _numbers(value, _Place(path, (name,)), owners or {}, seen)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a value is met; the fields are those of `NotedNumber`."""

    path: str
    keys: tuple[str, ...]
    beside: str = ""
    configures: bool = False
    items: int = 0

    def inside(self, key: str, value: Any) -> "_Place":
        """Return the place of what `value`, which is here, has under `key`."""
        module = [value[key] for key in BESIDE if isinstance(value.get(key), str)] if isinstance(value, dict) else []
        return _Place(
            self.path,
            (*self.keys, key),
            beside=module[0] if module else self.beside,
            configures=self.configures or not isinstance(value, dict | list | tuple),
            items=len(value) if isinstance(value, list | tuple) else 0,
        )


def _numbers(value: Any, place: _Place, owners: Mapping[int, str], seen: set[int]) -> Iterator[NotedNumber]:
    if type(value) is int:
        meaning = meaning_of(place.keys)
        if value > 1 and meaning is not None:
            name = ".".join(place.keys)
            yield NotedNumber(place.path, name, value, meaning, place.beside, place.configures, place.items)
        return
    # Equal tuples may be one object; anything else belongs to the module that keeps it as an attribute.
    foreign = not isinstance(value, tuple) and owners.get(id(value), place.path) != place.path
    if not foreign and id(value) not in seen and len(place.keys) < DEPTH:
        children = _children(value)
        if children:
            seen.add(id(value))
        for key, child in children:
            yield from _numbers(child, place.inside(key, value), owners, seen)


def _kept(module: nn.Module) -> dict[str, Any]:
    """Return what a module keeps beside what torch keeps in it."""
    if type(module).__module__.startswith("torch."):
        return {}
    sizes = (int, tuple) if isinstance(module, SizedLayer) else ()  # which follow the layer's tensors
    return {name: value for name, value in vars(module).items() if name not in OWN and type(value) not in sizes}


def meaning_of(keys: Sequence[str]) -> Meaning | None:
    """Return what the last name that is known among `keys` says of a number; None where it counts something else."""
    for key in reversed(keys):
        name = key.strip("_")
        if OTHER.search(name):
            return None
        if WIDTH.search(name):
            if TAKEN.search(name):
                return Meaning.TAKEN
            return Meaning.RETURNED if RETURNED.search(name) else Meaning.WIDTH
    return Meaning.UNKNOWN


def _children(value: Any) -> list[tuple[str, Any]]:
    """Return what a container or an object of the user's keeps, by key; nothing of tensors, modules and functions."""
    if isinstance(value, dict):
        return [(key, child) for key, child in value.items() if isinstance(key, str) and "." not in key]
    if isinstance(value, list | tuple):
        return [(str(index), child) for index, child in enumerate(value)]
    kept = getattr(value, "__dict__", None)
    foreign = type(value).__module__.partition(".")[0] in ("torch", "builtins") or callable(value)
    return list(kept.items()) if type(kept) is dict and not foreign and not isinstance(value, Tensor) else []


def number_at(module: nn.Module, name: str) -> Any:
    """Return what `module` keeps under keys joined with dots.

    Raises:
        AttributeError, KeyError, IndexError, TypeError, ValueError: there is no such thing.
    """
    first, *keys = name.split(".")
    value: Any = getattr(module, first)
    for key in keys:
        value = _item(value, key)
    return value


def set_number_at_(module: nn.Module, name: str, number: int) -> None:
    """Put `number` where `number_at` finds one; a tuple on the way is made anew."""
    first, *keys = name.split(".")
    setattr(module, first, _with(getattr(module, first), keys, number))


def _item(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value[key]
    return value[int(key)] if isinstance(value, list | tuple) else vars(value)[key]


def _with(value: Any, keys: list[str], number: int) -> Any:
    """Return `value` with a number under `keys`: the same object, but for tuples."""
    if not keys:
        return number
    key, new = keys[0], _with(_item(value, keys[0]), keys[1:], number)
    if isinstance(value, dict):
        value[key] = new
    elif isinstance(value, list):
        value[int(key)] = new
    elif isinstance(value, tuple):
        items = [*value[: int(key)], new, *value[int(key) + 1 :]]
        return value._make(items) if hasattr(value, "_make") else type(value)(items)
    else:
        object.__setattr__(value, key, new)  # a dataclass may be frozen
    return value

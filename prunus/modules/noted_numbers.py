"""Whole numbers anywhere in a network's objects: in attributes of modules, in containers, in configurations."""

import dataclasses
import enum
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from prunus.modules.kinds import SizedLayer

DEPTH = 5  # of nested containers and objects
OWN = frozenset(vars(nn.Module()))  # attributes that torch keeps in every module
BESIDE = ("module", "layer")  # keys under which a dictionary names the module that its numbers belong to
# Names of numbers that count channels, and of numbers that count something else: add new names here.
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


TAKEN = re.compile(r"^(in|input)_")  # names for the inputs, and below for the outputs, of the module with the number
RETURNED = re.compile(r"(^|_)(out|output|num_features|head_hidden_size|embed_dims?|d_model)(_|$)")


class Meaning(enum.Enum):
    """The meaning of a number by its name."""

    TAKEN = "it counts the channels that its module takes"
    RETURNED = "it counts the channels that its module, or all of it but a head, returns"
    WIDTH = "it counts channels"
    UNKNOWN = "it may count channels"


@dataclasses.dataclass(frozen=True)
class NotedNumber:
    """A whole number that a network keeps.

    Attributes:
        path: dotted path of the module.
        name: its place in the module as keys joined with dots: "num_features", "config.hidden_sizes.1".
        value: the number.
        meaning: the meaning of its name.
        beside: path of the module named beside it in a dictionary (timm's `feature_info`), "" where there is none.
        configures: whether it is in an object such as a configuration that networks are built from.
        items: length of the list that it is an item of, 0 where it is in none.
    """

    path: str
    name: str
    value: int
    meaning: Meaning
    beside: str
    configures: bool
    items: int = 0


def noted_numbers(model: nn.Module) -> Iterator[NotedNumber]:
    """Yield the whole numbers above one that may count channels, except the sizes of torch's own layers.

    An object shared by several modules belongs to the first module that keeps it as an attribute.
    """
    owners: dict[int, str] = {}
    for path, module in model.named_modules():
        for value in _kept(module).values():
            owners.setdefault(id(value), path)
    for path, module in model.named_modules():
        yield from numbers_of(module, path, owners)


def numbers_of(module: nn.Module, path: str = "", owners: Mapping[int, str] | None = None) -> Iterator[NotedNumber]:
    """Yield the numbers that one module keeps, except in objects of other `owners` (module path by object id)."""
    seen = set[int]()
    for name, value in _kept(module).items():
        yield from _numbers(value, _Place(path, (name,)), owners or {}, seen)


@dataclasses.dataclass(frozen=True)
class _Place:
    """The place of a value; the fields are those of `NotedNumber`."""

    path: str
    keys: tuple[str, ...]
    beside: str = ""
    configures: bool = False
    items: int = 0

    def inside(self, key: str, value: Any) -> "_Place":
        """Return the place of the item `key` of `value`, which is at this place."""
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
    """Return a module's attributes other than those that torch keeps in every module; none for torch's own modules."""
    if type(module).__module__.startswith("torch."):
        return {}
    sizes = (int, tuple) if isinstance(module, SizedLayer) else ()  # sizes that follow the layer's tensors
    return {name: value for name, value in vars(module).items() if name not in OWN and type(value) not in sizes}


def meaning_of(keys: Sequence[str]) -> Meaning | None:
    """Return a number's meaning by the last known name among `keys`; None where it does not count channels."""
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
    """Return (key, child) of a container or an object of the user's; none for tensors, modules and functions."""
    if isinstance(value, dict):
        return [(key, child) for key, child in value.items() if isinstance(key, str) and "." not in key]
    if isinstance(value, list | tuple):
        return [(str(index), child) for index, child in enumerate(value)]
    kept = getattr(value, "__dict__", None)
    foreign = type(value).__module__.partition(".")[0] in ("torch", "builtins") or callable(value)
    return list(kept.items()) if type(kept) is dict and not foreign and not isinstance(value, Tensor) else []


def number_at(module: nn.Module, name: str) -> Any:
    """Return the value in `module` at keys joined with dots.

    Raises:
        AttributeError, KeyError, IndexError, TypeError, ValueError: there is no such value.
    """
    first, *keys = name.split(".")
    value: Any = getattr(module, first)
    for key in keys:
        value = _item(value, key)
    return value


def set_number_at_(module: nn.Module, name: str, number: int) -> None:
    """Put `number` where `number_at` finds one; tuples along the keys are rebuilt."""
    first, *keys = name.split(".")
    setattr(module, first, _with(getattr(module, first), keys, number))


def _item(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value[key]
    return value[int(key)] if isinstance(value, list | tuple) else vars(value)[key]


def _with(value: Any, keys: list[str], number: int) -> Any:
    """Return `value` with `number` at `keys`: the same object, changed in place, or a new tuple."""
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

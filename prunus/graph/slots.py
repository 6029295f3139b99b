"""Where channels lie: dimensions of parameters and buffers, attributes that count them, reasons why they must stay."""

import dataclasses
import enum
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

PARAMETRISED = re.compile(r"(^|\.)parametrizations\.(\w+)\.\w+$")  # what a weight is computed from


class Role(enum.StrEnum):
    """What a parameter's dimension does with its channels."""

    PRODUCER = "producer"  # makes them: zero here, zero in the activation
    CONSUMER = "consumer"  # reads them: goes with them
    STATISTIC = "statistic"  # a running mean or variance: goes with them, need not be zero


class Status(enum.StrEnum):
    """Whether a group may be removed."""

    EXACT = "exact"  # zero producers: the output does not change
    APPROXIMATE = "approximate"  # the output changes even so
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True)
class Slot:
    """One dimension of one parameter or buffer: the group of each index, -1 where it belongs to none."""

    path: str
    dim: int
    role: Role
    groups: Tensor

    @property
    def module(self) -> str:
        """Dotted path of the module that owns the tensor."""
        return self.path.rpartition(".")[0]

    @property
    def layer(self) -> str:
        """What a reader calls it: the path of the module whose `weight` it is, parametrised, masked or not, else its
        own."""
        path = PARAMETRISED.sub(r"\1\2", self.path).removesuffix("_orig")
        return path[: -len("weight")].rstrip(".") if path.rpartition(".")[2] == "weight" else path


@dataclasses.dataclass(frozen=True)
class Member:
    """One channel of a group: index `index` of dimension `dim` of the tensor at `path`."""

    path: str
    dim: int
    index: int
    role: Role


@dataclasses.dataclass(frozen=True)
class Attribute:
    """A number that the code reads from a module and that counts channels: it follows them.

    Attributes:
        path: dotted path of the module.
        name: of the attribute.
        item: the index in it where it is a list or a tuple, else -1.
        groups: the group of each channel that it counts, -1 where it belongs to none; its id while groups are sought.
        line: "file:line" of the code that reads it.
    """

    path: str
    name: str
    item: int
    groups: Tensor
    line: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """Return which number it is."""
        return self.path, self.name, self.item


@dataclasses.dataclass(frozen=True)
class NotedWidth:
    """A number that no code reads while the network runs, as large as a dimension of channels: `num_features`, what a
    configuration says.

    Attributes:
        path: dotted path of the module.
        name: where in the module, in keys joined with dots, as "config.hidden_sizes.1".
        groups: the groups of each dimension that it may count, -1 where an index belongs to none.
        is_width: whether its name says that it counts channels: then it follows, where all those dimensions agree.
    """

    path: str
    name: str
    groups: tuple[Tensor, ...]
    is_width: bool

    def __str__(self) -> str:
        """Return where it lies, as code would say it."""
        keys = [f"[{key}]" if key.isdigit() else f".{key}" for key in self.name.split(".")]
        return f"{self.path}{''.join(keys)}".removeprefix(".")


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why groups are refused or approximate.

    Attributes:
        text: the sentence, with operator and place.
        groups: those of which it is said, int [n], each once.
        refused: whether it refuses them.
    """

    text: str
    groups: Tensor
    refused: bool


def whole(slots: Iterable[Slot]) -> Iterator[tuple[str, Tensor]]:
    """Yield (reason, group) of the groups that are all of a dimension: without them nothing would be left."""
    for slot in slots:
        first = int(slot.groups[0])
        if first >= 0 and bool((slot.groups == first).all()):
            yield f"it is all of {slot.path}, dimension {slot.dim}", torch.tensor([first])

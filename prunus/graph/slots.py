"""Where channels lie: dimensions of parameters and buffers, attributes that count them, reasons why they must stay."""

import dataclasses
import enum
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

PARAMETRISED = re.compile(r"(^|\.)parametrizations\.(\w+)\.\w+$")  # tensors that a weight is computed from


class Role(enum.StrEnum):
    """The role of a tensor's dimension for its channels."""

    PRODUCER = "producer"  # makes them: zero here, zero in the activation
    CONSUMER = "consumer"  # reads them: is cut with them
    STATISTIC = "statistic"  # a running mean or variance: is cut with them, need not be zero


class Status(enum.StrEnum):
    """Whether a group may be removed."""

    EXACT = "exact"  # zero producers: the output does not change
    APPROXIMATE = "approximate"  # the output changes even with zero producers
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
        """The name shown to the user: the module's path for its `weight`, parametrised, masked or plain, else the
        tensor's own path."""
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
    """A number that the code reads from a module and that counts channels: it follows a cut.

    Attributes:
        path: dotted path of the module.
        name: name of the attribute.
        item: index into the attribute where it is a list or a tuple, else -1.
        groups: the group of each channel counted, -1 where it belongs to none; channel ids until groups are built.
        line: "file:line" of the code that reads it.
    """

    path: str
    name: str
    item: int
    groups: Tensor
    line: str = ""

    @property
    def key(self) -> tuple[str, str, int]:
        """The number's identity: path, name, item."""
        return self.path, self.name, self.item


@dataclasses.dataclass(frozen=True)
class NotedWidth:
    """A number that no code reads while the network runs, as large as a dimension of channels: `num_features`, or an
    entry of a configuration.

    Attributes:
        path: dotted path of the module.
        name: its place in the module as keys joined with dots: "config.hidden_sizes.1".
        groups: the groups of each dimension that it may count, -1 where an index belongs to none.
        is_width: whether its name states that it counts channels: then it follows, if all these dimensions agree.
    """

    path: str
    name: str
    groups: tuple[Tensor, ...]
    is_width: bool

    def __str__(self) -> str:
        """Return its place as a Python expression."""
        keys = [f"[{key}]" if key.isdigit() else f".{key}" for key in self.name.split(".")]
        return f"{self.path}{''.join(keys)}".removeprefix(".")


@dataclasses.dataclass(frozen=True)
class Reason:
    """Why groups are refused or approximate.

    Attributes:
        text: the sentence, with operator and place.
        groups: the groups it applies to, int [n], each once.
        refused: whether the groups are refused, not approximate.
    """

    text: str
    groups: Tensor
    refused: bool


def whole(slots: Iterable[Slot]) -> Iterator[tuple[str, Tensor]]:
    """Yield (reason, group) of each group that is all of a dimension: without it the tensor would be empty."""
    for slot in slots:
        first = int(slot.groups[0])
        if first >= 0 and bool((slot.groups == first).all()):
            yield (
                f"it is the whole of dimension {slot.dim} of {slot.path}: removing it would leave nothing",
                torch.tensor([first]),
            )

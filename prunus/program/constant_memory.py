"""The memory of constants while a network is read: its views, its readers, and its former contents."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from prunus.program.operations import Value
from prunus.program.operators import Operator


@dataclasses.dataclass(frozen=True)
class View:
    """A call that has seen a constant in another shape."""

    operator: Operator
    args: Sequence[object]
    kwargs: Mapping[str, object]
    results: list[Tensor]


class ConstantMemory:
    """Keeps account of storages by their ids; what is held here keeps its id."""

    def __init__(self) -> None:
        self._held: list[torch.UntypedStorage] = []
        self._own: set[int] = set()  # made while the network is read
        self._views: dict[int, list[View]] = {}
        self._read: dict[int, list[tuple[int, Value]]] = {}  # id of a tensor, and the value that it was
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def own(self, tensors: Iterable[Tensor]) -> None:
        """These tensors were made while the network is read."""
        self._own.update(map(self._hold, tensors))

    def viewed(self, view: View) -> None:
        """A constant is seen in another shape."""
        for tensor in view.results[:1]:
            self._views.setdefault(self._hold(tensor), []).append(view)

    def views_of(self, tensor: Tensor) -> list[View]:
        """Return the calls that have viewed a constant's memory, once."""
        return self._views.pop(self._hold(tensor), [])

    def read(self, tensor: Tensor, value: Value) -> None:
        """An operator on data takes a constant."""
        self._read.setdefault(self._hold(tensor), []).append((id(tensor), value))

    def about_to_write(self, tensor: Tensor) -> Iterator[int]:
        """Keep the values that were read before the write; yield the ids of the tensors that are other values now."""
        for identity, value in self._read.pop(self._hold(tensor), []):
            value.constant = None if value.constant is None else value.constant.clone()
            yield identity
        self.remember(tensor)

    def remember(self, tensor: Tensor) -> None:
        """Remember what stood in memory that was there before the network is read."""
        identity, storage = self._hold(tensor), tensor.untyped_storage()
        if identity not in self._own and identity not in self._before:
            self._before[identity] = storage, storage.clone()  # type: ignore[no-untyped-call]

    def restore(self) -> None:
        """Write back what was there."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def _hold(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._held.append(storage)
        return id(storage)

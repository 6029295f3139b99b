"""The memory of constants while a network is read: its views, its readers, and its earlier contents."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from prunus.program.operations import Value
from prunus.program.operators import Operator


@dataclasses.dataclass(frozen=True)
class View:
    """A call that returned a view of a constant."""

    operator: Operator
    args: Sequence[object]
    kwargs: Mapping[str, object]
    results: list[Tensor]


class ConstantMemory:
    """Keeps account of storages by their ids; storages are held, so that their ids are not reused."""

    def __init__(self) -> None:
        self._held: list[torch.UntypedStorage] = []
        self._own: set[int] = set()  # storages made while the network is read
        self._views: dict[int, list[View]] = {}
        self._read: dict[int, list[tuple[int, Value]]] = {}  # (id of a tensor, the value that it held)
        self._before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}  # (storage, earlier contents)

    def own(self, tensors: Iterable[Tensor]) -> None:
        """Record that these tensors were made while the network is read."""
        self._own.update(map(self._hold, tensors))

    def viewed(self, view: View) -> None:
        """Record a view of a constant."""
        for tensor in view.results[:1]:
            self._views.setdefault(self._hold(tensor), []).append(view)

    def views_of(self, tensor: Tensor) -> list[View]:
        """Return the calls that have viewed a constant's memory, and forget them."""
        return self._views.pop(self._hold(tensor), [])

    def read(self, tensor: Tensor, value: Value) -> None:
        """Record that an operator on data takes a constant."""
        self._read.setdefault(self._hold(tensor), []).append((id(tensor), value))

    def about_to_write(self, tensor: Tensor) -> Iterator[int]:
        """Copy the constants that were read before the write; yield the ids of the tensors that hold new values now."""
        for identity, value in self._read.pop(self._hold(tensor), []):
            value.constant = None if value.constant is None else value.constant.clone()
            yield identity
        self.remember(tensor)

    def remember(self, tensor: Tensor) -> None:
        """Save the contents of memory that existed before the network is read."""
        identity, storage = self._hold(tensor), tensor.untyped_storage()
        if identity not in self._own and identity not in self._before:
            self._before[identity] = storage, storage.clone()  # type: ignore[no-untyped-call]

    def restore(self) -> None:
        """Write back the saved contents."""
        for storage, before in self._before.values():
            storage.copy_(before)

    def _hold(self, tensor: Tensor) -> int:
        storage = tensor.untyped_storage()
        self._held.append(storage)
        return id(storage)
